"""Chooses how a base backup is read: by our own workers where all that they need is proven, or by pg_basebackup."""

import logging
from dataclasses import dataclass
from pathlib import Path

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.records import BackupMethod, MethodChoice
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.own_data_directory import judge_local_reading

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChosenMethod:
    """How a base backup is read. ``why_remote`` says what was in the way of reading the files, where that was asked."""

    method: BackupMethod = BackupMethod.REMOTE
    why_remote: str | None = None


def choose_backup_method(
    choice: MethodChoice, server: BackupServer, pgdata: Path | None, parent: BaseBackupManifest | None
) -> ChosenMethod:
    """Return the method for a base backup that is built on ``parent``, or is a full one.

    One is built on a parent of its own method only.

    Raises: BaseBackupError where the choice cannot be had; PostgresError where the server cannot be asked.
    """
    only = MethodChoice(parent.method.value) if parent is not None else choice
    if parent is not None and choice not in (MethodChoice.AUTO, only):
        raise BaseBackupError(
            f"the parent '{parent.backup_id}' is of the method '{only}', this base backup is to be of '{choice}'",
            hint="Take a full base backup, or set WAL_PIPELINE_BACKUP_METHOD=auto.",
        )
    if only is MethodChoice.REMOTE:
        return ChosenMethod()
    reading = judge_local_reading(server, pgdata)
    if reading.is_possible:
        return ChosenMethod(BackupMethod.LOCAL)
    if only is MethodChoice.LOCAL:
        raise BaseBackupError(f"the data directory cannot be read here: {reading.obstacle}", hint=reading.hint)
    _log.info("pg_basebackup takes the base backup, because %s", reading.obstacle)
    return ChosenMethod(BackupMethod.REMOTE, reading.obstacle)
