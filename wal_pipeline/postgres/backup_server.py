"""Asks the server for its tablespaces, their sizes and its clock, which a base backup needs beside pg_basebackup."""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wal_pipeline.archive.format.configuration import KeptConfiguration
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.text import moment_utc

_TABLESPACES: Final = """
SELECT oid::bigint, pg_tablespace_location(oid) FROM pg_tablespace
WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid
"""
_log = logging.getLogger(__name__)


_DATABASES: Final = """
SELECT oid::bigint FROM pg_database
WHERE dattablespace = (SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default')
"""
_MESSAGES: Final = """
SELECT current_setting('client_min_messages'), current_setting('lc_messages'),
       has_parameter_privilege('lc_messages', 'SET')
"""
_PROGRESS: Final = """
SELECT p.phase, a.last_failed_wal, a.last_failed_time, a.last_archived_wal, a.last_archived_time
FROM pg_stat_progress_basebackup p JOIN pg_stat_activity s USING (pid), pg_stat_archiver a
ORDER BY s.backend_start DESC LIMIT 1
"""
_PLACES_HIDDEN: Final = (
    "whether configuration files are outside the data directory is not known, and none is kept: grant "
    "pg_read_all_settings to the role"
)
# walsender.c: each message has the primary's time, and where its WAL was flushed then (latest_end_lsn).
_AS_OF: Final = """
SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(
    greatest(pg_last_xact_replay_timestamp(),
             (SELECT last_msg_send_time - interval '1 second' FROM pg_stat_wal_receiver
              WHERE status = 'streaming' AND latest_end_lsn <= pg_last_wal_replay_lsn())), clock_timestamp())
  ELSE clock_timestamp() END
"""
_SILENT_LEVELS: Final = ("error", "fatal", "panic")
_ENGLISH: Final = ("", "C", "POSIX")
_ARCHIVER_PHASE: Final = "waiting for wal archiving to finish"
_CHECKPOINT_PHASE: Final = "waiting for checkpoint to finish"


@dataclass(frozen=True, slots=True)
class BackupPhaseSeen:
    """The phase of a running base backup by the server, and how its archiver fares."""

    phase: str
    last_failed_wal: str | None
    last_failed_at: datetime | None
    last_archived_wal: str | None
    last_archived_at: datetime | None

    @property
    def waits_for_archiver(self) -> bool:
        """Whether all is sent, and the server waits until its last segments are archived."""
        return self.phase == _ARCHIVER_PHASE

    def describe(self) -> str:
        """Say in words what the server waits for."""
        if self.phase == _CHECKPOINT_PHASE:
            return "PostgreSQL waits for a checkpoint"
        if not self.waits_for_archiver:
            return f"PostgreSQL sends nothing ({self.phase})"
        failed_at, archived_at = self.last_failed_at, self.last_archived_at
        if failed_at is not None and (archived_at is None or failed_at > archived_at):
            return (
                f"PostgreSQL waits for its archiver (last failure '{self.last_failed_wal}' at {moment_utc(failed_at)})"
            )
        last = f"last archived '{self.last_archived_wal}'" if archived_at is not None else "nothing archived yet"
        return f"PostgreSQL waits for its archiver ({last})"


@dataclass(frozen=True, slots=True)
class ServerTablespace:
    """A tablespace other than ``pg_default`` and ``pg_global``; ``location`` is its folder on the server."""

    oid: int
    location: str


class BackupServer(PostgresServer):
    """The server that a base backup is taken from."""

    def tablespaces(self) -> tuple[ServerTablespace, ...]:
        """Return the tablespaces outside the data directory, by oid. Raises: PostgresError."""
        with self._session("reading the tablespaces") as connection:
            return tuple(ServerTablespace(*row) for row in connection.execute(_TABLESPACES).fetchall())

    def databases(self) -> frozenset[int]:
        """Return the databases whose folders lie in the data directory, by oid. Raises: PostgresError."""
        with self._session("reading the databases") as connection:
            return frozenset(row[0] for row in connection.execute(_DATABASES).fetchall())

    def backup_phase(self) -> BackupPhaseSeen | None:
        """Return the phase of the base backup that began last; None where none runs. Raises: PostgresError."""
        with self._session("asking what a base backup waits for") as connection:
            row = connection.execute(_PROGRESS).fetchone()
        return None if row is None else BackupPhaseSeen(*row)

    def size_bytes(self) -> int | None:
        """Return the bytes of all tablespaces, an estimate of what a base backup reads.

        None, with a warning in the log, where the server cannot tell it in time or the role may not see them all.
        """
        try:
            with self._session("measuring the tablespaces") as connection:
                row = connection.execute("SELECT sum(pg_tablespace_size(oid))::bigint FROM pg_tablespace").fetchone()
        except PostgresError as error:
            _log.warning("the size of the cluster is not known: %s", error.message)
            return None
        return None if row is None else int(row[0])

    def outside_configuration(self) -> tuple[KeptConfiguration | None, tuple[str, ...]]:
        """Return the configuration outside the data directory, and a warning for each thing that could not be read.

        None where nothing is outside, or where it is not known what is. A base backup without it restores all data, so
        nothing is raised.
        """
        try:
            kept = self.configuration()
        except PostgresError as error:
            return None, (f"the configuration outside the data directory is not kept: {error.message}",)
        if kept is None:
            return None, (_PLACES_HIDDEN,)
        warnings = tuple(f"a configuration file is not kept: {reason}" for reason in kept.missing.values())
        return (None if kept.is_empty else kept), warnings

    def as_of(self) -> datetime:
        """Return the moment of the server's content: its time or, on a standby, that up to which it surely replayed.

        Base backups end at it: nothing that was committed later is promised from them, and recovery windows begin
        there. A standby's is the last commit that it replayed or, where it has replayed all that its primary had
        flushed, the second before the primary's last message; its own clock where it knows neither.

        Raises: PostgresError.
        """
        with self._session("reading the server's clock") as connection:
            row = connection.execute(_AS_OF).fetchone()
        if row is None:
            raise PostgresError("PostgreSQL returned no row for its time")
        moment: datetime = row[0]
        return moment

    def message_options(self) -> str:
        """Return the connection options that make the server say its warnings, and in English; empty where it does so.

        A role may not choose the language unless it has the right. Raises: PostgresError.
        """
        with self._session("asking how messages are said") as connection:
            row = connection.execute(_MESSAGES).fetchone()
        if row is None:
            raise PostgresError("PostgreSQL returned no row for its messages")
        level, language, may_set = row
        options = ["-c client_min_messages=notice"] if level in _SILENT_LEVELS else []
        if may_set and language not in _ENGLISH and not language.startswith("en"):
            options.append("-c lc_messages=C")
        return " ".join(options)
