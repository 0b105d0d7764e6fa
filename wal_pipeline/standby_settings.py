"""Defines the settings around a standby: base backups that are taken from one, and the primary that one follows."""

from pydantic import BaseModel, ConfigDict, SecretStr


class StandbySettings(BaseModel):
    """``backup_conninfo`` leads to the server that base backups are taken from; empty: the one of ``conninfo``.

    ``primary_conninfo`` is what a standby, which 'wal-pipeline restore --standby' makes, streams by.
    """

    model_config = ConfigDict(frozen=True)

    backup_conninfo: SecretStr = SecretStr("")
    primary_conninfo: SecretStr = SecretStr("")
