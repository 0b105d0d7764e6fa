"""Reads the WAL that is not archived yet in the folder of a running pg_receivewal, on another host than the server."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from wal_pipeline.commands.ship.host_wal import read_history
from wal_pipeline.commands.ship.source import OpenWal
from wal_pipeline.errors import InvalidWalFileError, PostgresError, SegmentGoneError
from wal_pipeline.host.durable_file import put_once
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.postgres.flushed_wal import FlushedWal, FlushWatch
from wal_pipeline.postgres.kept_look import keep_look, kept_look
from wal_pipeline.postgres.open_segment import SegmentBytes, read_segment_bytes
from wal_pipeline.postgres.receivewal import PARTIAL, ReceiveWal, valid_end
from wal_pipeline.postgres.slots import read_slot, require_usable
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, WalFileName, history_name, parse_file_name, segment_at
from wal_pipeline.wal.timeline import TimelineHistory

_WAIT_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.02
_MOST_LOOKS: Final = 1000
# The row of pg_stat_replication is of this one connection: the slot's own position may be of an earlier host's.
_REPORTED_SQL: Final = """
SELECT r.flush_lsn::text, r.backend_start >= %s, pg_has_role('pg_read_all_stats', 'usage')
FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
WHERE s.slot_name = %s
"""
_log = logging.getLogger(__name__)


class ReceivedWal(OpenWal):
    """The folder of a pg_receivewal that we run. Its finished segments move into the spool.

    The position is what pg_receivewal has reported to the server as flushed: it syncs each write first. Where the
    server does not answer any more, it is the end of the last record with a right checksum, once.
    """

    def __init__(
        self,
        watch: FlushWatch,
        make_receiver: Callable[[int], ReceiveWal],
        *,
        folder: Path,
        slot: str,
        spool_folder: Path,
        bindir: Path | None = None,
    ) -> None:
        """``make_receiver`` gets the server's major version; ``bindir`` is where pg_waldump is looked for first."""
        self._watch = watch
        self._make_receiver = make_receiver
        self._folder = folder
        self._slot = slot
        self._spool_folder = spool_folder
        self._bindir = bindir
        self._lock = threading.Lock()
        self._receiver: ReceiveWal | None = None
        self._started_at: datetime | None = None
        self._looks: deque[FlushedWal] = deque(maxlen=_MOST_LOOKS)
        self._returned: FlushedWal | None = None
        self._finished = (0, Lsn(0))
        self._looked_through = 0
        self._warned: set[str] = set()

    def look(self) -> FlushedWal:
        """Return what is received and on this host's disk, and the moment of the server's clock it is complete for."""
        with self._lock:
            try:
                flushed = self._watch.look()
                receiver = self._running_receiver(flushed.server_major)
            except PostgresError as error:
                found = self._left_by_a_lost_server(error)
            else:
                found = self._received(flushed, receiver)
                if self._returned is None or found.lsn != self._returned.lsn:
                    with suppress(OSError):  # a full disk must not end shipping
                        keep_look(self._folder, found)
            self._returned = found
            return found

    def read(self, segment: WalFileName, from_offset: int, to_offset: int, seen: FlushedWal) -> bytes:
        """Read from the open file, from the finished one, or from the spool, in the order in which a segment moves."""
        wanted = SegmentBytes(segment, from_offset, to_offset, segment.end_lsn(seen.wal_segment_size) <= seen.lsn)
        partial = self._folder / f"{segment.name}{PARTIAL}"
        for place in (partial, self._folder / segment.name, self._spool_folder / segment.name):
            try:
                return read_segment_bytes(
                    place,
                    wanted,
                    system_identifier=seen.system_identifier,
                    wal_segment_size=seen.wal_segment_size,
                )
            except SegmentGoneError:
                continue
        raise SegmentGoneError(
            f"'{segment.name}' is neither in '{self._folder}' nor in the spool",
            hint="It has left the spool for the stores, or its timeline was left.",
        )

    def history(self, timeline: int) -> TimelineHistory | None:
        """Read the history file that pg_receivewal got, as long as it has not left the spool."""
        name = history_name(timeline).name
        found = (read_history(folder / name, timeline) for folder in (self._folder, self._spool_folder))
        return next((history for history in found if history is not None), None)

    def close(self) -> None:
        """End pg_receivewal, and close the connection."""
        with self._lock:
            if self._receiver is not None:
                self._receiver.stop()
        self._watch.close()

    def _running_receiver(self, major: int) -> ReceiveWal:
        """Start pg_receivewal where it does not run. Raises: PostgresError with the reason why it cannot."""
        receiver = self._receiver
        if receiver is not None and receiver.is_running:
            return receiver
        if receiver is not None:
            _log.warning("%s", receiver.failure().message)
        slot = self._slot
        require_usable(slot, self._watch.ask(lambda connection: read_slot(connection, slot)), ours=slot)
        self._started_at = self._watch.ask(_clock)
        receiver = self._receiver = self._make_receiver(major)  # the server may be of another version now
        receiver.start()
        return receiver

    def _received(self, flushed: FlushedWal, receiver: ReceiveWal) -> FlushedWal:
        """Wait a moment until what the server had flushed is here. Raises: PostgresError where it is far from it."""
        deadline = time.monotonic() + _WAIT_SECONDS
        self._looks.append(flushed)
        while True:
            position = self._position(flushed)
            if position is not None and position >= flushed.lsn:
                return flushed
            if not receiver.is_running:
                raise receiver.failure()
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        earlier = [
            look for look in self._looks
            if position is not None and look.timeline == flushed.timeline and look.lsn <= position
        ]  # fmt: skip
        if not earlier or position is None:
            behind = "nothing" if position is None else f"{flushed.lsn - position} bytes less than"
            raise PostgresError(
                f"pg_receivewal has received {behind} what the server has flushed",
                hint="It catches up by itself; 'wal-pipeline slot check' says how much the slot holds back.",
            )
        return replace(earlier[-1], lsn=position)

    def _position(self, flushed: FlushedWal) -> Lsn | None:
        """Return what is here on the server's timeline: by pg_receivewal's report, or by its finished segments."""
        given = (self._started_at, self._slot)
        row = self._watch.ask(lambda connection: connection.execute(_REPORTED_SQL, given).fetchone())
        self._deliver()
        if row is not None and not row[2]:
            raise PostgresError(
                "the role may not see how far pg_receivewal is",
                hint="GRANT pg_read_all_stats (or pg_monitor) TO the role that WAL_PIPELINE_CONNINFO names.",
            )
        timeline, finished = self._finished
        reported = Lsn.parse(row[0]) if row is not None and row[0] and row[1] else None
        if reported is not None and self._has(flushed, reported):
            return max(reported, finished) if timeline == flushed.timeline else reported
        return finished if timeline == flushed.timeline else None

    def _has(self, flushed: FlushedWal, lsn: Lsn) -> bool:
        """Whether the segment of a position is here on the server's timeline: a report may be of the one before."""
        name = segment_at(flushed.timeline, Lsn(max(lsn - 1, 0)), flushed.wal_segment_size).name
        places = (self._folder / f"{name}{PARTIAL}", self._folder / name, self._spool_folder / name)
        return any(place.exists() for place in places)

    def _deliver(self) -> None:
        """Move what is finished into the spool: pg_receivewal has synced it before it took ``.partial`` off its name.

        A spool that cannot be written is the archiving's trouble, which says so: the file stays here until it can.
        """
        for name, path in self._files():
            if name.kind not in (FileKind.SEGMENT, FileKind.HISTORY):
                continue
            try:
                if not put_once(path, self._spool_folder):
                    self._warn(f"'{path}' has other content than the spool's file of that name, and stays")
            except OSError as error:
                self._warn(f"'{path}' cannot be moved into the spool '{self._spool_folder}': {error.strerror}")
            if name.kind is FileKind.SEGMENT:
                end = name.end_lsn(self._watch.server.wal_segment_size)
                self._finished = max(self._finished, (name.timeline, end))

    def _warn(self, message: str) -> None:
        """Log a message once: a look comes every few seconds."""
        if message not in self._warned:
            self._warned.add(message)
            _log.warning("%s", message)

    def _files(self) -> list[tuple[WalFileName, Path]]:
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        named = [(name, path) for path in paths if (name := parse_file_name(path.name)) is not None]
        return sorted(named, key=lambda one: one[0].order)

    def _left_by_a_lost_server(self, error: PostgresError) -> FlushedWal:
        """Return once what was received from a server that does not answer any more. Raises: the server's error."""
        if not self._looks and (kept := kept_look(self._folder)) is not None:
            self._looks.append(kept)  # of a process before this one
        last = self._looks[-1] if self._looks else None
        written = max((path.stat().st_mtime_ns for path in self._folder.glob(f"*{PARTIAL}")), default=0)
        if last is None or written == self._looked_through:
            raise error
        end = self._valid_end(segment_at(last.timeline, last.lsn, last.wal_segment_size), last)
        self._looked_through = written
        known = [look for look in self._looks if end is not None and look.lsn <= end]
        if end is None or not known or (self._returned is not None and end <= self._returned.lsn):
            raise error
        return replace(known[-1], lsn=end)

    def _valid_end(self, name: WalFileName, last: FlushedWal) -> Lsn | None:
        """Return the end of valid WAL from a segment on; pg_receivewal may have gone on into later ones."""
        end = None
        while True:
            paths = (self._folder / f"{name.name}{PARTIAL}", self._folder / name.name, self._spool_folder / name.name)
            path = next((path for path in paths if path.exists()), None)
            if path is None:
                return end
            try:
                program = find_binaries(last.server_major, exactly=True, bindir=self._bindir).program("pg_waldump")
                found = valid_end(program, path, name)
            except (PostgresError, InvalidWalFileError) as error:
                _log.warning("%s", error.message)
                return end
            if found is None:
                return end
            end = found
            name = name.next(last.wal_segment_size)


def _clock(connection: psycopg.Connection[Any]) -> datetime:
    [(at,)] = connection.execute("SELECT clock_timestamp()").fetchall()
    moment: datetime = at
    return moment
