"""Defines the settings of how and when base backups are taken, and of how long a restore may take."""

import re
from typing import Any, Final

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from wal_pipeline.archive.records import FileComparison, MethodChoice

_OFF: Final = "off"
_OLDER_NAME: Final = "WAL_PIPELINE_BASE_BACKUP_CRON"
_INCREMENTAL: Final = "base_backup_incremental_cron"
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class BackupSettings(BaseModel):
    """How and when base backups are taken. ``rto_objective_seconds`` is None where it is off.

    ``base_backup_workers`` processes read the data directory with the method ``local``; None is one for each core, and
    threads where the cluster is small.

    ``incremental_compare``: whether such a base backup reads the files that did not change by their sizes and times.

    ``base_backup_max_chain`` counts the full base backup too. ``rto_early_base_backup``: the next base backup is taken
    earlier where that brings the predicted time of a restore below the objective.
    """

    model_config = ConfigDict(frozen=True)

    base_backup_full_cron: str = Field(
        "15 2 * * 0", validation_alias=AliasChoices("WAL_PIPELINE_BASE_BACKUP_FULL_CRON", _OLDER_NAME)
    )
    base_backup_incremental_cron: str = "15 2 * * 1-6"
    base_backup_max_chain: int = Field(7, ge=1, le=64)
    backup_method: MethodChoice = MethodChoice.AUTO
    base_backup_workers: int | None = Field(None, ge=1, le=256)
    incremental_compare: FileComparison = FileComparison.CONTENT
    rto_objective_seconds: float | None = Field(3600.0, gt=0, validation_alias="WAL_PIPELINE_RTO_OBJECTIVE")
    rto_early_base_backup: bool = False

    @field_validator("rto_objective_seconds", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        """Read ``3600``, ``1h`` or ``1h30m`` as seconds, and ``off`` as None."""
        if not isinstance(value, str):
            return value
        text = value.strip().lower()
        if text == _OFF:
            return None
        if _PART.sub("", text) or not text:
            return value  # a plain number, or what pydantic refuses
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, values: Any) -> Any:
        """Let the older name mean what it meant: full base backups at these times, and no others."""
        if isinstance(values, dict) and _OLDER_NAME in values and _INCREMENTAL not in values:
            return {**values, _INCREMENTAL: _OFF}
        return values
