"""Recovers a scratch cluster to the wanted moment, and lets the rescue work with its databases."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psycopg

from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal, limits_of
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.beside.fetch_service import FetchService
from wal_pipeline.commands.beside.scratch_folder import FETCH_FOLDER, ScratchUse
from wal_pipeline.commands.beside.scratch_server import scratch_isolation
from wal_pipeline.commands.rescue.result import RescueEvents
from wal_pipeline.commands.restore.perform import RestoreResult, perform_restore
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.reached import require_reached
from wal_pipeline.commands.restore.start import RecoveryResult, running_server
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.environment import plain_environment
from wal_pipeline.postgres.session import open_session
from wal_pipeline.text import moment_utc

SCRATCH_USE: Final = ScratchUse("rescue", "--folder")
_NOT_SEEN: Final = "recovery ended before configured recovery target was reached"  # xlogrecovery.c
WORK_SECONDS: Final = 24 * 3600  # for one statement: a count of a large table
_LOGIN_TRIGGERS_SINCE: Final = 17
# Nothing of the scratch cluster is kept, so that nothing of it has to survive a crash of the machine.
_HASTY: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
# DROP DATABASE marks its database as invalid, outside its transaction, and removes the files before its commit. Until
# then all is there: the mark is taken off again.
_UNMARK: Final = "UPDATE pg_database SET datconnlimit = -1 WHERE datconnlimit = -2"  # pg_database.h
_NO_FILES: Final = "database subdirectory"  # postinit.c: the server's detail, untranslated
_IS_SUPERUSER: Final = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
_DATABASES: Final = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"


@dataclass(frozen=True, slots=True)
class ScratchCluster:
    """A scratch cluster that was recovered and takes writes, reached through a socket that only we know."""

    socket: Path
    role: str
    placed: RestoreResult
    recovery: RecoveryResult

    @contextmanager
    def session(self, database: str, purpose: str) -> Iterator[psycopg.Connection[Any]]:
        """Open a session in one of its databases; names are in UTF-8. Raises: PostgresError, RestoreError."""
        parameters = _parameters(self.socket, self.role, database)
        try:
            with open_session(parameters, purpose, limit_seconds=WORK_SECONDS) as connection:
                connection.execute("SET client_encoding = 'UTF8'")
                yield connection
        except PostgresError as error:
            if _NO_FILES not in error.message:
                raise
            raise RestoreError(
                f"database '{database}' has no files at that moment: DROP DATABASE removes them before its commit",
                hint="Name a moment before it: 'wal-pipeline find' prints it, as --to-lsn.",
            ) from None

    def unmark_databases(self) -> None:
        """Let databases be entered whose DROP DATABASE had begun. Raises: PostgresError."""
        with self.session("template1", "looking for databases that were being dropped") as connection:
            connection.execute(_UNMARK)

    def databases(self) -> tuple[str, ...]:
        """Return the databases that can be connected to, without templates. Raises: PostgresError."""
        with self.session("template1", "listing the databases") as connection:
            return tuple(str(name) for (name,) in connection.execute(_DATABASES).fetchall())

    def program_environment(self, database: str) -> dict[str, str]:
        """Return the environment with which PostgreSQL's programs reach one database, and nothing else."""
        where = {"PGHOST": str(self.socket), "PGPORT": "5432", "PGUSER": self.role, "PGDATABASE": database}
        return {**plain_environment(), **where}


def _parameters(socket: Path, role: str, database: str) -> dict[str, str]:
    """Return where a database is. Empty values keep libpq's variables out: PGHOSTADDR would lead to another server."""
    where = {"host": str(socket), "hostaddr": "", "port": "5432", "options": ""}
    return {**where, "user": role, "dbname": database}


def _superuser(socket: Path, roles: Sequence[str]) -> str:
    """Return the first of the roles that is a superuser. Raises: RestoreError, which says why none of them is."""
    reasons = []
    for role in dict.fromkeys(roles):
        try:
            with open_session(_parameters(socket, role, "template1"), "looking for a superuser") as connection:
                row = connection.execute(_IS_SUPERUSER).fetchone()
        except PostgresError as error:
            reasons.append(error.message)
            continue
        if row is not None and row[0]:
            return role
        reasons.append(f"role '{role}' is no superuser")
    raise RestoreError(
        f"the scratch server lets no superuser in: {'; '.join(reasons)}",
        hint="Name the cluster's superuser with --role.",
    )


@contextmanager
def recovered_cluster(
    prepared: PreparedRestore, folder: Path, roles: Sequence[str], events: RescueEvents
) -> Iterator[ScratchCluster]:
    """Bring the files back, start the server, and give it to the block once it is where the plan says; then stop it.

    ``roles`` are those that may be a superuser of the cluster; the first that is one works in it.

    Raises: RestoreError, also where recovery did not end at the planned moment; PostgresError, StoreError, CodecError.
    """
    source = WalSource(prepared.layout, prepared.stores, prepared.identities)
    wal = RecoveryWal(source, limits_of(prepared.plan))
    with FetchService(folder / FETCH_FOLDER, wal, prepared.user) as fetching:
        placed = perform_restore(prepared, fetching.command(), events)
        isolation = scratch_isolation(folder, prepared, folder / FETCH_FOLDER)
        login = {"event_triggers": "off"} if prepared.binaries.major >= _LOGIN_TRIGGERS_SINCE else {}
        isolation = replace(isolation, settings={**isolation.settings, **_HASTY, **login})
        events.starting(prepared)
        log = folder / "recovery.log"
        opened = running_server(
            prepared,
            isolation,
            log=log,
            timeout_seconds=math.inf,
            on_progress=events.recovering,
            keeps_nothing=True,
        )
        with _explaining(fetching, prepared), opened as recovery:
            require_reached(prepared, recovery)
            role = _superuser(folder / "socket", roles)
            scratch = ScratchCluster(folder / "socket", role, placed, recovery)
            scratch.unmark_databases()
            yield scratch


@contextmanager
def _explaining(fetching: FetchService, prepared: PreparedRestore) -> Iterator[None]:
    """Put the reason before the server's own words: it cannot know why a WAL file, or its target, did not come."""
    try:
        yield
    except PostgresError as error:
        if fetching.faults:
            raise RestoreError("\n".join([*fetching.faults, error.message]), hint=error.hint) from error
        if _NOT_SEEN not in error.message:
            raise
        backup = prepared.chain[-1]
        raise RestoreError(
            f"{prepared.plan.asked} was not seen in the WAL after base backup '{backup.backup_id}', which was finished "
            f"at {moment_utc(backup.finished_at)}",
            hint="If it was committed before that, say when with --committed-at, or name an older base backup with "
            "--base-backup ('wal-pipeline list' shows them). 'wal-pipeline find' names transactions with their times.",
        ) from error
