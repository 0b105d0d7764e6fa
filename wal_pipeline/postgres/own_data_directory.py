"""Proves that a folder on this host is the data directory of the server that we talk to, and can be read whole.

A clone, a standby or a snapshot of a cluster has the same system identifier, the same configuration and even the same
``postmaster.pid``. So the server is asked to do something that only its own directory shows: it exports a snapshot,
which is a file in ``pg_snapshots`` for as long as the transaction lasts. Any role may do that, on a standby too.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.control_file import read_control_file, read_server_major
from wal_pipeline.postgres.server import PostgresServer

_SNAPSHOTS: Final = "pg_snapshots"
# A file system of another host may show a change some seconds later.
_SEEN_WITHIN_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05
_RIGHTS: Final = """
SELECT current_user, current_database(),
       has_function_privilege('pg_backup_start(text, boolean)', 'execute')
       AND has_function_privilege('pg_backup_stop(boolean)', 'execute')
"""
_SPACES: Final = """
SELECT oid::bigint, array(SELECT pg_tablespace_databases(oid))::bigint[] FROM pg_tablespace
WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid
"""
_OTHERS_FILES: Final = ("postmaster.opts", "postmaster.pid")
_READ_HINT: Final = (
    "PGDATA must be the server's own data directory, and this program must run as a user who may read all of it."
)
_LOOKED_INTO: Final = ("", "base", "global", "pg_xact", "pg_multixact/members", "pg_tblspc")


@dataclass(frozen=True, slots=True)
class BackupRight:
    """Whether a role may begin and end a base backup by SQL, in the database that the connection uses."""

    role: str
    database: str
    is_granted: bool

    @property
    def grant(self) -> str:
        """The statement that gives the right, for a superuser in that database."""
        role = self.role.replace('"', '""')
        return f'GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO "{role}";'


@dataclass(frozen=True, slots=True)
class LocalReading:
    """Whether a base backup can read the files itself. ``obstacle`` says why not; None where it can."""

    obstacle: str | None = None
    hint: str | None = None

    @property
    def is_possible(self) -> bool:
        """Whether nothing is in the way."""
        return self.obstacle is None


def backup_right(server: PostgresServer) -> BackupRight:
    """Ask whether the role may begin and end a base backup. Raises: PostgresError."""
    with server.session("asking for the right to take base backups") as connection:
        [row] = connection.execute(_RIGHTS).fetchall()
    return BackupRight(*row)


def judge_local_reading(
    server: PostgresServer, pgdata: Path | None, *, seen_within_seconds: float = _SEEN_WITHIN_SECONDS
) -> LocalReading:
    """Say whether base backups of the server can be taken by reading ``pgdata`` on this host.

    ``seen_within_seconds`` is how long a change by the server may take until it is seen here.

    Raises: PostgresError where the server cannot be asked.
    """
    if pgdata is None:
        return LocalReading("PGDATA is not set", "Set PGDATA to the data directory where it is on this host.")
    right = backup_right(server)
    if not right.is_granted:
        return LocalReading(
            f"the role '{right.role}' may not call pg_backup_start and pg_backup_stop in the database "
            f"'{right.database}'",
            f"As a superuser, in the database '{right.database}': {right.grant}",
        )
    try:
        return next(_obstacles(server, pgdata, seen_within_seconds), LocalReading())
    except OSError as error:
        return LocalReading(f"'{error.filename}' cannot be read: {error.strerror}", _READ_HINT)


def _obstacles(server: PostgresServer, pgdata: Path, seen_within_seconds: float) -> Iterator[LocalReading]:
    """Yield what is in the way, the first reason first. Raises: OSError where something cannot be read."""
    try:
        control, major = read_control_file(pgdata), read_server_major(pgdata)
    except PostgresError as error:
        yield LocalReading(error.message, _READ_HINT)
        return
    for folder in _LOOKED_INTO:
        _open_one(pgdata / folder)
    expected = server.system_identifier()
    if control.system_identifier != expected:
        yield LocalReading(
            f"'{pgdata}' has the system identifier {control.system_identifier}, the server has {expected}", _READ_HINT
        )
    elif not _shows_snapshot(server, pgdata, seen_within_seconds):
        yield LocalReading(
            f"'{pgdata}' is of the same cluster, and yet not the server's own data directory: it does not show what "
            "the server does",
            "It may be a clone's or a standby's, or the link 'pg_snapshots' leads elsewhere. Set PGDATA or "
            "WAL_PIPELINE_CONNINFO so that both mean the same server.",
        )
    else:
        yield from _tablespace_obstacles(server, pgdata, f"PG_{major}_{control.catalog_version}")


def _open_one(folder: Path) -> None:
    """Open the folder's first file, if it has one. Raises: OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.name not in _OTHERS_FILES:
                os.close(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW))
                return


def _shows_snapshot(server: PostgresServer, pgdata: Path, within_seconds: float) -> bool:
    """Let the server make a file in its data directory and remove it, and say whether this one shows both.

    Raises: OSError where the file is there and cannot be read.
    """
    folder = pgdata / _SNAPSHOTS
    if folder.is_symlink():
        return False  # a clone whose link was copied shows the original's
    with server.session("proving that PGDATA is the server's own") as connection:
        connection.execute("BEGIN")
        [(name, process)] = connection.execute("SELECT pg_export_snapshot(), pg_backend_pid()").fetchall()
        content = _appearing(folder / name, within_seconds)
        connection.execute("ROLLBACK")
    if isinstance(content, OSError):
        raise content
    return f"\npid:{process}\n" in content and _is_true(lambda: not (folder / name).exists(), within_seconds)


def _appearing(path: Path, within_seconds: float) -> str | OSError:
    """Return the content of a file, empty where it does not come in time, or why it cannot be read."""
    try:
        there = _is_true(path.exists, within_seconds)
        return path.read_text(encoding="ascii", errors="replace") if there else ""
    except OSError as error:
        return error


def _is_true(question: Callable[[], bool], within_seconds: float) -> bool:
    """Ask until the answer is yes, for so long at most."""
    end = time.monotonic() + within_seconds
    while not question():
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _tablespace_obstacles(server: PostgresServer, pgdata: Path, version: str) -> Iterator[LocalReading]:
    """Find tablespaces that this host sees otherwise than the server: not mounted here, or another disk."""
    with server.session("reading the tablespaces") as connection:
        spaces = connection.execute(_SPACES).fetchall()
    for oid, databases in spaces:
        folder = pgdata / "pg_tblspc" / str(oid) / version
        missing = {str(database) for database in databases} - _folders(folder)
        if missing:
            yield LocalReading(
                f"tablespace {oid} is not whole here: '{folder}' lacks the folders {', '.join(sorted(missing))}, which "
                "the server has",
                "Mount the tablespace's folder here at the same path as on the server.",
            )


def _folders(folder: Path) -> set[str]:
    """Return the folders in a folder; none where it is not there, as the server itself may see it."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    except FileNotFoundError:
        return set()
