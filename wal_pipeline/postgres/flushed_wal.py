"""Asks the server, over one kept connection, up to which LSN its WAL is on its disk."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg.rows import dict_row

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.wal.lsn import Lsn

_PURPOSE: Final = "asking for the flushed WAL"
_QUICK_SECONDS: Final = 2.0
_SERVER_SQL: Final = """
SELECT (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS wal_segment_size,
       current_setting('server_version_num')::int / 10000 AS server_major,
       current_setting('wal_level') AS wal_level,
       (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data_directory,
       pg_is_in_recovery() AS is_standby
"""
# The moment comes first: what is flushed is looked at after it, and holds all that was acknowledged before it.
_PRIMARY_SQL: Final = """
SELECT clock_timestamp() AS at, pg_current_wal_flush_lsn()::text AS lsn,
       ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::bigint AS timeline
"""
# The view behind pg_stat_wal_receiver reads LSN and timeline under one lock. Where no receiver runs, the control file
# has such a pair, which is behind; pg_last_wal_receive_lsn() has no timeline. Last: whether it is a standby still.
_STANDBY_SQL: Final = """
SELECT clock_timestamp() AS at, r.flushed_lsn::text AS received_lsn, r.received_tli::bigint AS received_timeline,
       (SELECT pg_control_last_modified FROM pg_control_system()) AS control_at,
       c.min_recovery_end_lsn::text AS replayed_lsn, c.min_recovery_end_timeline::bigint AS replayed_timeline,
       pg_is_in_recovery() AS is_standby
FROM pg_control_recovery() AS c LEFT JOIN pg_stat_get_wal_receiver() AS r ON true
"""
_CONTROL_SQL: Final = """
SELECT extract(epoch FROM pg_control_last_modified)::bigint AS written_epoch, checkpoint_lsn::text AS checkpoint_lsn,
       pg_is_in_recovery() AS is_standby
FROM pg_control_system(), pg_control_checkpoint()
"""
T = TypeVar("T")
Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class FlushedWal:
    """The WAL that is on the server's disk: all of ``timeline`` up to ``lsn``.

    ``at`` is a moment of the server's clock: each commit that it had acknowledged then lies before ``lsn`` (but for
    ``synchronous_commit = off``, which acknowledges before the flush). Of a standby both are about what it received.
    """

    lsn: Lsn
    at: datetime
    timeline: int
    system_identifier: int
    wal_segment_size: int
    is_standby: bool
    server_major: int


@dataclass(frozen=True, slots=True)
class WatchedServer:
    """Facts of a server that do not change while it runs. ``data_directory`` is None where the role may not see it."""

    system_identifier: int
    wal_segment_size: int
    server_major: int
    wal_level: str
    data_directory: Path | None


@dataclass(frozen=True, slots=True)
class ControlMark:
    """A part of the control file, as the server reads it: the data directory on this host is recognized by it."""

    written_epoch: int
    checkpoint_lsn: Lsn
    is_standby: bool


class FlushWatch:
    """Watches one server's flushed WAL over one kept connection. Safe from several threads.

    ``connections`` counts the connections made: a new one may be to a server that was started again, or to another.
    """

    def __init__(self, server: PostgresServer) -> None:
        """Connect at the first look."""
        self.connections = 0
        self._lock = threading.RLock()
        self._session = server.keep_session(_PURPOSE)
        self._known: Connection | None = None
        self._server: WatchedServer | None = None
        self._is_standby = False
        self._received: FlushedWal | None = None

    @property
    def server(self) -> WatchedServer:
        """The server of the last look. Raises: PostgresError where none was asked yet."""
        if self._server is None:
            raise PostgresError("the server was not asked yet", hint="This is a fault of this program: report it.")
        return self._server

    def look(self) -> FlushedWal:
        """Return what is flushed now. Raises: PostgresError."""
        return self.ask(self._look)

    def control_mark(self) -> ControlMark:
        """Return what the server reads in its control file. Raises: PostgresError."""
        row = self.ask(lambda connection: one_row(connection, _CONTROL_SQL))
        return ControlMark(row["written_epoch"], Lsn.parse(row["checkpoint_lsn"]), row["is_standby"])

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Put a question through the kept connection.

        A connection that was lost since the last question, as by a restart, is made again at once.

        Raises: PostgresError.
        """
        with self._lock:
            was_open, begun = self._session.is_open, time.monotonic()
            try:
                return self._session.ask(lambda connection: self._asked(connection, question))
            except PostgresError:
                if not was_open or time.monotonic() - begun > _QUICK_SECONDS:
                    raise  # a server that hangs is not asked twice
            return self._session.ask(lambda connection: self._asked(connection, question))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._known = None
            self._session.close()

    def _asked(self, connection: Connection, question: Callable[[Connection], T]) -> T:
        if connection is not self._known:
            self._greet(connection)
            self._known = connection
        return question(connection)

    def _greet(self, connection: Connection) -> None:
        row = one_row(connection, _SERVER_SQL)
        self._is_standby = row.pop("is_standby")
        folder, identifier = row.pop("data_directory"), row.pop("system_identifier") % 2**64
        found = WatchedServer(**row, system_identifier=identifier, data_directory=Path(folder) if folder else None)
        if found.wal_level == "minimal":
            raise PostgresError(
                "wal_level is 'minimal', expected 'replica' or 'logical': WAL of that level restores nothing",
                hint="'wal-pipeline setup' says how to change it. The server needs a restart, then a base backup.",
            )
        if self._server is None or self._server.system_identifier != identifier:
            self._received = None
        self._server = found
        self.connections += 1

    def _look(self, connection: Connection) -> FlushedWal:
        if self._is_standby:
            found = self._look_at_standby(connection)
            if found is not None:
                return found
            self._is_standby = False  # it was promoted
        row = one_row(connection, _PRIMARY_SQL)
        return self._flushed(Lsn.parse(row["lsn"]), row["at"], row["timeline"])

    def _look_at_standby(self, connection: Connection) -> FlushedWal | None:
        """Return what the standby has on its disk, by the furthest proof; None where it is a standby no more."""
        row = one_row(connection, _STANDBY_SQL)
        if not row["is_standby"]:
            return None
        if row["received_lsn"] and row["received_timeline"]:
            self._received = self._flushed(Lsn.parse(row["received_lsn"]), row["at"], row["received_timeline"])
            return self._received
        replayed = None
        if row["replayed_timeline"]:
            replayed = self._flushed(Lsn.parse(row["replayed_lsn"]), row["control_at"], row["replayed_timeline"])
        known = [found for found in (self._received, replayed) if found is not None]
        if not known:
            raise PostgresError(
                "the standby does not say what it has received: it receives nothing now, and has replayed nothing yet",
                hint="A role must be a member of pg_monitor to see it: GRANT pg_monitor TO … on the primary.",
            )
        return max(known, key=lambda found: (found.timeline, found.lsn))

    def _flushed(self, lsn: Lsn, at: datetime, timeline: int) -> FlushedWal:
        server = self.server
        return FlushedWal(
            lsn=lsn,
            at=at,
            timeline=timeline,
            system_identifier=server.system_identifier,
            wal_segment_size=server.wal_segment_size,
            is_standby=self._is_standby,
            server_major=server.server_major,
        )


def one_row(connection: Connection, statement: str) -> dict[str, Any]:
    """Return the one row of a statement's answer, by column. Raises: psycopg.Error."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(statement.encode()).fetchone()
    if row is None:
        raise PostgresError("PostgreSQL returned no row for its WAL position")
    return row
