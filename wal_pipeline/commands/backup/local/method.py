"""Chooses how a base backup is read: by our own workers where all that they need is proven, or by pg_basebackup."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.records import BackupMethod, MethodChoice
from wal_pipeline.commands.backup.preconditions import require_block_incremental
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.own_data_directory import judge_local_reading
from wal_pipeline.postgres.server_facts import ServerFacts

_BY_BLOCK: Final = "the server summarizes its WAL, so that it sends only the blocks that changed"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChosenMethod:
    """How a base backup is read. ``why_remote`` says what was in the way of reading the files, where that was asked."""

    method: BackupMethod = BackupMethod.REMOTE
    why_remote: str | None = None


def choose_backup_method(
    choice: MethodChoice,
    server: BackupServer,
    pgdata: Path | None,
    parent: BaseBackupManifest | None,
    facts: ServerFacts | None = None,
) -> ChosenMethod:
    """Return the method for a base backup that is built on ``parent``, or is a full one.

    PostgreSQL's own incremental base backups build on any parent, the method ``local`` on one of its own only. On such
    a parent ``auto`` lets PostgreSQL send the changed blocks where the server, whose ``facts`` these are, can do that.

    Raises: BaseBackupError where the choice cannot be had; PostgresError where the server cannot be asked.
    """
    only_remote = parent is not None and parent.method is BackupMethod.REMOTE
    if parent is not None and only_remote and choice is MethodChoice.LOCAL:
        raise BaseBackupError(
            f"the parent '{parent.backup_id}' is of the method 'remote', this base backup is to be of 'local'",
            hint="Take a full base backup, or set WAL_PIPELINE_BACKUP_METHOD=auto.",
        )
    if only_remote or choice is MethodChoice.REMOTE:
        return ChosenMethod()
    if parent is not None and choice is MethodChoice.AUTO and _sends_blocks(facts, parent):
        return ChosenMethod(BackupMethod.REMOTE, _BY_BLOCK)
    reading = judge_local_reading(server, pgdata)
    if reading.is_possible:
        return ChosenMethod(BackupMethod.LOCAL)
    if parent is not None or choice is MethodChoice.LOCAL:
        raise BaseBackupError(f"the data directory cannot be read here: {reading.obstacle}", hint=reading.hint)
    _log.info("pg_basebackup takes the base backup, because %s", reading.obstacle)
    return ChosenMethod(BackupMethod.REMOTE, reading.obstacle)


def _sends_blocks(facts: ServerFacts | None, parent: BaseBackupManifest) -> bool:
    """Whether the server can send what changed since the parent, as far as its settings and its role say."""
    if facts is None or not facts.role.replication:
        return False
    try:
        require_block_incremental(facts, parent)
    except BaseBackupError as error:
        _log.info("unchanged files are referred to, because %s", error.message)
        return False
    return True
