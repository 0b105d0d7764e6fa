"""Looks at the server that base backups are taken from, where that is another one than the server that archives."""

from collections.abc import Iterator
from pathlib import Path

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.own_data_directory import judge_local_reading
from wal_pipeline.postgres.server_facts import ServerFacts

_NAME = "base backups"
_SETTING = "WAL_PIPELINE_BACKUP_CONNINFO"


def judge_backup_source(source: BackupServer, archived: ServerFacts, pgdata: Path | None = None) -> Iterator[Finding]:
    """Say whether base backups can be taken from ``source``. ``archived`` is the server whose WAL is archived.

    They are read from ``pgdata`` where that is the source's own data directory; it may be on another host.
    """
    try:
        facts = source.facts()
    except PostgresError as error:
        lines = (error.hint,) if error.hint else ()
        yield Finding(_NAME, Level.PROBLEM, f"{_SETTING}: {error.message}", lines=lines)
        return
    if facts.system_identifier != archived.system_identifier:
        message = (
            f"the server of {_SETTING} has system identifier {facts.system_identifier}, expected "
            f"{archived.system_identifier}: its base backups do not fit the archived WAL"
        )
        yield Finding(_NAME, Level.PROBLEM, message, lines=(f"let {_SETTING} lead to a standby of this cluster",))
        return
    kind = "a standby" if facts.in_recovery else "no standby, but a server that takes writes"
    if pgdata is not None and _is_read(source, pgdata):
        yield Finding(_NAME, Level.OK, f"are read from '{pgdata}', of the server at {source.address}, {kind}")
        return
    if not facts.role.replication:
        message = f"role '{facts.role.name}' of {_SETTING} may not replicate, so it can take no base backup"
        yield Finding(_NAME, Level.PROBLEM, message, lines=(f'ALTER ROLE "{facts.role.name}" REPLICATION',))
        return
    yield Finding(_NAME, Level.OK, f"are taken from the server at {source.address}, {kind}")


def _is_read(source: BackupServer, pgdata: Path) -> bool:
    try:
        return judge_local_reading(source, pgdata).is_possible
    except PostgresError:
        return False
