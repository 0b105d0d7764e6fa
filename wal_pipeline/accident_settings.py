"""Defines the settings of the accident desk: where clones stand."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from wal_pipeline.host.given_values import absolute_path


class AccidentSettings(BaseModel):
    """``clone_folder`` is the folder below which clones stand; None: a default by the user who makes them."""

    model_config = ConfigDict(frozen=True)

    clone_folder: Path | None = None

    @field_validator("clone_folder")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else absolute_path(str(value), Path.cwd())
