"""Watches what a base backup waits for while PostgreSQL sends nothing, says it, and ends a wait that is too long."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Self

from wal_pipeline.codec.stream_encoder import Source
from wal_pipeline.errors import BaseBackupError, PostgresError
from wal_pipeline.postgres.backup_server import BackupPhaseSeen, BackupServer
from wal_pipeline.text import length, moment_utc

_log = logging.getLogger(__name__)
_SILENT_SECONDS: Final = 15.0
_TELL_SECONDS: Final = 60.0
_LIMIT_NAME: Final = "WAL_PIPELINE_BASE_BACKUP_ARCHIVER_TIMEOUT_SECONDS"


@dataclass(frozen=True, slots=True)
class BackupWait:
    """One wait of a base backup: ``text`` says for what.

    ``is_archiver``: it waits for PostgreSQL's own archiver, which a person must mend.
    """

    text: str
    since_at: datetime
    is_archiver: bool


TellWait = Callable[[BackupWait], object]


class SilenceWatch:
    """Looks from a thread whether the server sends; a context manager. ``end`` is called where the limit is over.

    Time in which nobody reads, because a store is slow, does not count.
    """

    def __init__(
        self,
        server: BackupServer,
        limit_seconds: float,
        *,
        done_bytes: Callable[[], int],
        tell: TellWait,
        end: Callable[[BaseBackupError], object],
        poll_seconds: float = 2.0,
    ) -> None:
        """``done_bytes`` says how far the program is; while that grows, the server sends."""
        self._server = server
        self._count = done_bytes
        self._limit_seconds = limit_seconds
        self._tell = tell
        self._end = end
        self._poll_seconds = poll_seconds
        self._silent_since: float | None = None
        self._done_bytes = 0
        self._told_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="backup-waits", daemon=True)

    def source(self, source: Source) -> Source:
        """Return the source whose reads are watched."""
        return _WatchedSource(source, self)

    def begins(self) -> None:
        """Note that we ask for the next bytes."""
        self._silent_since = time.monotonic()

    def ends(self) -> None:
        """Note that the bytes came."""
        self._silent_since = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join(self._poll_seconds + 1)

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            done_bytes, since = self._count(), self._silent_since
            if since is not None and done_bytes != self._done_bytes:
                since = self._silent_since = time.monotonic()
            self._done_bytes = done_bytes
            silent_seconds = 0.0 if since is None else time.monotonic() - since
            if silent_seconds >= min(_SILENT_SECONDS, self._limit_seconds):
                self._look(silent_seconds)

    def _look(self, silent_seconds: float) -> None:
        is_over = silent_seconds >= self._limit_seconds
        if not is_over and time.monotonic() - self._told_at < _TELL_SECONDS:
            return
        wait = self._wait(silent_seconds)
        self._told_at = time.monotonic()
        if not self._stop.is_set():
            _log.warning("%s", wait.text)
            self._tell(wait)
        if is_over:
            self._stop.set()
            self._end(_too_long(wait, silent_seconds))

    def _wait(self, silent_seconds: float) -> BackupWait:
        since_at = datetime.now(UTC) - timedelta(seconds=silent_seconds)
        seen: BackupPhaseSeen | None = None
        try:
            seen = self._server.backup_phase()
            said = "PostgreSQL sends nothing" if seen is None else seen.describe()
        except PostgresError as error:
            said = f"PostgreSQL sends nothing, and cannot be asked why: {error.message}"
        is_archiver = seen is not None and seen.waits_for_archiver
        return BackupWait(f"{said}, since {moment_utc(since_at)}", since_at, is_archiver)


def _too_long(wait: BackupWait, silent_seconds: float) -> BaseBackupError:
    mend = "See that PostgreSQL can archive into the spool ('wal-pipeline check'). " if wait.is_archiver else ""
    return BaseBackupError(
        f"given up after {length(silent_seconds)}: {wait.text}",
        hint=f"{mend}{_LIMIT_NAME} sets how long a base backup waits for the server.",
    )


class _WatchedSource:
    def __init__(self, source: Source, watch: SilenceWatch) -> None:
        self._source = source
        self._watch = watch

    def read(self, size: int, /) -> bytes:
        self._watch.begins()
        try:
            return self._source.read(size)
        finally:
            self._watch.ends()
