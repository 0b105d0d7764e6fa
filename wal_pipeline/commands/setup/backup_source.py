"""Looks at the server that base backups are taken from, where that is another one than the server that archives."""

from collections.abc import Iterator

from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.server_facts import ServerFacts

_NAME = "base backups"
_SETTING = "WAL_PIPELINE_BACKUP_CONNINFO"


def judge_backup_source(source: BackupServer, archived: ServerFacts) -> Iterator[Finding]:
    """Say whether base backups can be taken from ``source``. ``archived`` is the server whose WAL is archived.

    Its data directory may be on another host, so the folders on this one are not looked at.
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
    if not facts.role.replication:
        message = f"role '{facts.role.name}' of {_SETTING} may not replicate, so it can take no base backup"
        yield Finding(_NAME, Level.PROBLEM, message, lines=(f'ALTER ROLE "{facts.role.name}" REPLICATION',))
        return
    kind = "a standby" if facts.in_recovery else "no standby, but a server that takes writes"
    yield Finding(_NAME, Level.OK, f"are taken from the server at {source.address}, {kind}")
