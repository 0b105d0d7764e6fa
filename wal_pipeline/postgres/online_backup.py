"""Keeps a server in backup mode over one connection: pg_backup_start, and pg_backup_stop at the end.

https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from wal_pipeline.errors import BaseBackupError, PostgresError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.session import LongSession
from wal_pipeline.postgres.started_backup import StartedBackup
from wal_pipeline.wal.lsn import Lsn

_FACTS: Final = """
SELECT current_setting('server_version_num')::int / 10000 AS major,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       pg_is_in_recovery() AS in_recovery,
       current_setting('block_size')::int AS block_size,
       (SELECT setting::int FROM pg_settings WHERE name = 'segment_size') AS blocks_per_segment,
       current_setting('data_checksums') = 'on' AS has_checksums,
       clock_timestamp() AS started_at
"""
_START: Final = "SELECT pg_backup_start(convert_from(%s, 'SQL_ASCII'), %s)::text AS lsn"
_TIMELINE: Final = "SELECT timeline_id AS timeline FROM pg_control_checkpoint()"
_STOP: Final = """
SELECT lsn::text AS lsn, convert_to(labelfile, 'SQL_ASCII') AS label, convert_to(spcmapfile, 'SQL_ASCII') AS map,
       clock_timestamp() AS finished_at
FROM pg_backup_stop(false)
"""
# After the stop: where a standby went to another timeline before it, this names that one.
_RECOVERY_TIMELINE: Final = "SELECT min_recovery_end_timeline AS timeline FROM pg_control_recovery()"
_STILL: Final = "SELECT pg_is_in_recovery() AS in_recovery"
_LABEL_START: Final = re.compile(rb"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) \(file [0-9A-F]{24}\)$", re.MULTILINE)
_LABEL_TIMELINE: Final = re.compile(rb"^START TIMELINE: ([0-9]+)$", re.MULTILINE)
_AGAIN: Final = "Take the base backup again."
_POOLER_HINT: Final = (
    "Connect to the server itself: a connection pooler gives each transaction another connection, and the server's "
    "backup mode ends with the one that began it."
)
GRANT_HINT: Final = (
    "As a superuser, in the database that the connection uses: GRANT EXECUTE ON FUNCTION "
    "pg_backup_start(text, boolean), pg_backup_stop(boolean) TO the role."
)


@dataclass(frozen=True, slots=True)
class StoppedBackup:
    """A base backup's end: a restore is consistent from ``stop_lsn`` on, on ``timeline``.

    ``label_file`` is the content of ``backup_label``, ``tablespace_map`` that of the file of this name, empty where the
    base backup needs none. ``finished_at`` is the server's time.
    """

    stop_lsn: Lsn
    timeline: int
    label_file: bytes
    tablespace_map: bytes
    finished_at: datetime


class RunningBackup:
    """A server that is in backup mode. ``started`` tells of its start. Each method may be called from any thread."""

    def __init__(self, session: LongSession, started: StartedBackup) -> None:
        self.started = started
        self._session = session
        self._lock = threading.Lock()

    def require_running(self) -> None:
        """Ask the server whether the base backup can still be ended, so that one that cannot does not go on for hours.

        Raises: BaseBackupError where the connection is lost, or where the standby was promoted.
        """
        with self._lock:
            row = _asked(self._session, _STILL)
        if row["in_recovery"] != self.started.in_recovery:
            raise BaseBackupError("the standby was promoted during the base backup", hint=_AGAIN)

    def stop(self) -> StoppedBackup:
        """End the backup mode, without a wait for the archiver.

        Raises: BaseBackupError where the server cannot end it: the base backup is worth nothing then.
        """
        with self._lock:
            row = _asked(self._session, _STOP)
            timeline = self.started.timeline
            if self.started.in_recovery:
                timeline = int(_asked(self._session, _RECOVERY_TIMELINE)["timeline"])
        label = bytes(row["label"])
        self._require_own(label)
        if timeline != self.started.timeline:
            raise BaseBackupError(
                f"the standby went from timeline {self.started.timeline} to {timeline} during the base backup",
                hint=f"{_AGAIN} It begins on the new timeline then.",
            )
        return StoppedBackup(Lsn.parse(row["lsn"]), timeline, label, bytes(row["map"] or b""), row["finished_at"])

    def _require_own(self, label: bytes) -> None:
        """Refuse a label that is not that of this start, such as one that a pooler's other connection gave."""
        start, timeline = _LABEL_START.search(label), _LABEL_TIMELINE.search(label)
        found = (Lsn.parse(start[1].decode()), int(timeline[1])) if start and timeline else None
        if found != (self.started.start_lsn, self.started.timeline):
            raise BaseBackupError(
                f"the server's backup label names another start than {self.started.start_lsn} on timeline "
                f"{self.started.timeline}: {label.decode(errors='replace')!r}",
                hint=_POOLER_HINT,
            )


class OnlineBackup:
    """Starts and stops base backups of one server by its SQL functions. A standby that takes queries will do."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @contextmanager
    def started(self, label: str, *, fast: bool) -> Iterator[RunningBackup]:
        """Put the server into backup mode, and take it out again where the block ends without ``stop``.

        ``label`` stands in ``backup_label``. ``fast`` makes the checkpoint at once; without it the server spreads the
        checkpoint, which takes minutes.

        Raises: BaseBackupError, and PostgresError where there is no connection.
        """
        session = self._server.open_long_session("taking a base backup")
        try:
            facts = _asked(session, _FACTS)
            start_lsn = Lsn.parse(_asked(session, _START, label.encode(), fast)["lsn"])
            timeline = int(_asked(session, _TIMELINE)["timeline"])
            identifier = int(facts.pop("system_identifier")) % 2**64  # SQL shows it signed
            yield RunningBackup(session, StartedBackup(start_lsn, timeline, system_identifier=identifier, **facts))
        finally:
            session.close()


def _asked(session: LongSession, statement: str, *parameters: object) -> dict[str, Any]:
    """Return the one row of a statement. Raises: BaseBackupError."""

    def ask(connection: psycopg.Connection[Any]) -> dict[str, Any]:
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement.encode(), parameters or None).fetchall()[0]

    try:
        return session.ask(ask)
    except PostgresError as error:
        raise BaseBackupError(error.message, hint=_hint(error)) from error


def _hint(error: PostgresError) -> str:
    hints = {
        "connection to PostgreSQL was lost": f"{_AGAIN} The server left its backup mode when the connection ended; its "
        "log says why it did.",
        "permission denied for function": GRANT_HINT,
        "backup is not in progress": _POOLER_HINT,
        "was promoted": _AGAIN,
    }
    return next((hint for words, hint in hints.items() if words in error.message), error.hint or _AGAIN)
