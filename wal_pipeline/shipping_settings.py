"""Defines the settings by which the open segment is shipped."""

import math
import re
from typing import Final, Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from wal_pipeline.standby_settings import StandbySettings

OFF: Final = "off"
_SLOT: Final = re.compile(r"[a-z0-9_]{1,63}\Z")
_SLOT_BYTES: Final = 63  # NAMEDATALEN - 1


def default_slot(cluster: str) -> str:
    """Return the replication slot's name for a cluster: PostgreSQL takes lower-case letters, digits and ``_``."""
    return f"wal_pipeline_{re.sub('[^a-z0-9]', '_', cluster.lower())}"[:_SLOT_BYTES]


class ShippingSettings(StandbySettings):
    """The cluster's name, and how its open segment is shipped. ``ship_interval_seconds`` is None where it is off."""

    model_config = ConfigDict(frozen=True)

    cluster: str = "main"
    ship_interval_seconds: float | None = 5.0
    ship_from: Literal["host", "pg_receivewal"] = "host"
    ship_slot: str = ""

    @field_validator("ship_interval_seconds", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() == OFF else value

    @field_validator("ship_interval_seconds")
    @classmethod
    def _is_interval(cls, value: float | None) -> float | None:
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError("must be a number of seconds above 0, or 'off'")
        return value

    @field_validator("ship_slot")
    @classmethod
    def _is_slot(cls, value: str) -> str:
        if value and not _SLOT.match(value):
            raise ValueError("must be 1 to 63 lower-case letters, digits and '_'")
        return value

    @model_validator(mode="after")
    def _slot_of_cluster(self) -> Self:
        if not self.ship_slot:
            object.__setattr__(self, "ship_slot", default_slot(self.cluster))  # the model is frozen
        return self
