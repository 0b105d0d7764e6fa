"""Fetches the next segments ahead of replay, so that a ``restore_command`` only has to move a file.

The folder of one PGDATA and system identifier holds

``<segment>``       a verified, durable segment, which the restore command's ``mv`` takes;
``.<segment>…tmp``  one that is being written;
``.<file>…answer``  one that is handed to whoever asked for it;
``position``        the segment that was last asked of the program, and its size: replay is there;
``socket``          where the prefetcher answers for a file that was not fetched ahead (``prefetch_server``);
``lock``            held by the one prefetcher that works in the folder.

Only segments are fetched ahead: a segment's content never changes, while the absence of a history file may end.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from wal_pipeline.commands.archive_get.prefetch_folder import Position, PrefetchFolder
from wal_pipeline.commands.archive_get.wal_source import FetchedWal
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.wal.names import WalFileName, require_file_name, segment_name

_TURN_SECONDS: Final = 0.02
_REST_AFTER_SECONDS: Final = 2.0
_REST_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class PrefetchLimits:
    """How far to run ahead: at most ``files`` and ``size_bytes`` on disk, ``workers`` at once; until idle."""

    files: int = 12
    size_bytes: int = 1 << 30
    workers: int = 4
    idle_seconds: float = 30.0

    def window(self, wal_segment_size: int) -> int:
        """Return how many segments may lie ahead; 0 where not even one fits."""
        return min(self.files, self.size_bytes // wal_segment_size)


@dataclass(slots=True)
class _Ahead:
    """The prefetcher's knowledge: where replay is, which files are under way, which were delivered."""

    position: Position
    number: int
    running: dict[str, Future[bool]] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)
    retry_at: float = 0.0
    retry_seconds: float = _RETRY_SECONDS


class Prefetcher:
    """Keeps the segments after replay's position in the folder until nobody takes any for a while."""

    def __init__(
        self,
        folder: PrefetchFolder,
        fetch: Callable[[WalFileName], FetchedWal | None],
        limits: PrefetchLimits,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._fetch = fetch
        self._limits = limits
        self._now = now
        self._active_at = now()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End soon, from any thread: somebody asks with other settings than ours."""
        self._stopped.set()

    def run(
        self,
        beside: AbstractContextManager[object] | None = None,
        *,
        asked_at: Callable[[], float] = lambda: float("-inf"),
        is_asked: Callable[[str], bool] = lambda _: False,
    ) -> bool:
        """Work until idle, with ``beside`` open; False where another prefetcher works in the folder already.

        ``asked_at`` returns when somebody last asked for a file, which is a sign of life too. ``is_asked`` tells
        whether a file is being fetched for somebody who waits for it.
        """
        with self._folder.lock() as held:
            if held:
                try:
                    self._folder.clear()
                    with beside or nullcontext():
                        self._work(asked_at, is_asked)
                finally:
                    self._folder.clear()
        return held

    def _work(self, asked_at: Callable[[], float], is_asked: Callable[[str], bool]) -> None:
        self._active_at = self._now()
        position = self._await_position(asked_at)
        if position is None:
            return
        ahead = _Ahead(position, position.name.number(position.wal_segment_size))
        with ThreadPoolExecutor(self._workers(position), thread_name_prefix="prefetch") as pool:
            while self._is_wanted(asked_at):
                ahead, moved = self._follow(ahead)
                if moved:
                    self._active_at = self._now()
                self._load(ahead, pool, is_asked)
                _pause(ahead, rest=self._now() - self._active_at > _REST_AFTER_SECONDS)

    def _is_wanted(self, asked_at: Callable[[], float]) -> bool:
        idle_seconds = self._now() - max(self._active_at, asked_at())
        return idle_seconds < self._limits.idle_seconds and self._folder.path.is_dir() and not self._stopped.is_set()

    def _await_position(self, asked_at: Callable[[], float]) -> Position | None:
        """Return where replay is, once a segment was asked for; None where none was before it is idle."""
        while (position := self._folder.read_position()) is None and self._is_wanted(asked_at):
            time.sleep(_TURN_SECONDS)
        return position

    def _workers(self, position: Position) -> int:
        """Bound the memory: each worker holds a file's stored and opened bytes."""
        return max(1, min(self._limits.workers, self._limits.size_bytes // (2 * position.wal_segment_size)))

    def _follow(self, ahead: _Ahead) -> tuple[_Ahead, bool]:
        """Note what was taken since the last turn; a file taken or a new position is a sign of life."""
        position = self._folder.read_position()
        if position is not None and position != ahead.position:
            return self._move(ahead, position), True
        ready = self._folder.ready()
        taken = ahead.delivered - ready
        for name in taken:
            ahead.number = max(ahead.number, require_file_name(name).number(ahead.position.wal_segment_size))
        ahead.delivered -= taken
        self._drop(ahead, ready)
        return ahead, bool(taken)

    def _move(self, ahead: _Ahead, position: Position) -> _Ahead:
        """Begin again at another position, keeping what is still ahead of it."""
        moved = _Ahead(position, position.name.number(position.wal_segment_size), ahead.running)
        ready = self._folder.ready()
        self._drop(moved, ready)
        moved.delivered = ahead.delivered & ready & set(self._wanted(moved))
        return moved

    def _drop(self, ahead: _Ahead, ready: set[str]) -> None:
        """Remove what lies behind replay or on a timeline that it left."""
        stale = ready - set(self._wanted(ahead))
        self._folder.remove(stale)
        ahead.delivered -= stale

    def _wanted(self, ahead: _Ahead) -> list[str]:
        size = ahead.position.wal_segment_size
        timeline = ahead.position.name.timeline
        return [
            segment_name(timeline, ahead.number + step, size).name for step in range(1, self._limits.window(size) + 1)
        ]

    def _load(self, ahead: _Ahead, pool: ThreadPoolExecutor, is_asked: Callable[[str], bool]) -> None:
        """Collect what finished, and begin what is missing, in the order in which replay will ask."""
        self._collect(ahead)
        if self._now() < ahead.retry_at:
            return
        for name in self._wanted(ahead):
            if len(ahead.running) >= self._allowed(ahead):
                return
            if name not in ahead.delivered and name not in ahead.running and self._begin(name, is_asked):
                ahead.running[name] = pool.submit(self._fetch_into_folder, name)

    def _begin(self, name: str, is_asked: Callable[[str], bool]) -> bool:
        """Mark a file as being fetched; False where it is fetched for somebody already."""
        self._folder.begin(name)
        if is_asked(name):
            self._folder.mark(name).unlink(missing_ok=True)
            return False
        return True

    def _allowed(self, ahead: _Ahead) -> int:
        """Return how many files may be fetched at once: one where the last was absent, to ask the stores little."""
        return 1 if ahead.retry_seconds > _RETRY_SECONDS else self._workers(ahead.position)

    def _collect(self, ahead: _Ahead) -> None:
        wanted = set(self._wanted(ahead))
        for name, future in [item for item in ahead.running.items() if item[1].done()]:
            del ahead.running[name]
            if future.result():
                # A file that replay left behind meanwhile may be dropped already: its absence does not mean "taken".
                ahead.delivered |= {name} & wanted
                ahead.retry_seconds = _RETRY_SECONDS
            else:
                ahead.retry_at = self._now() + ahead.retry_seconds
                ahead.retry_seconds = min(ahead.retry_seconds * 2, _LONGEST_RETRY_SECONDS)

    def _fetch_into_folder(self, name: str) -> bool:
        """Fetch one file; False where it is absent or not available: whoever asks for it then gets the reason."""
        try:
            fetched = self._fetch(require_file_name(name))
            if fetched is not None:
                self._folder.put(fetched.data, name)
        except (WalPipelineError, OSError):
            return False
        else:
            return fetched is not None
        finally:
            self._folder.mark(name).unlink(missing_ok=True)


def _pause(ahead: _Ahead, *, rest: bool) -> None:
    """Wait for something to happen; longer where nothing was taken for a while, as beside a standby."""
    if ahead.running:
        wait(ahead.running.values(), timeout=_TURN_SECONDS, return_when="FIRST_COMPLETED")
        time.sleep(_TURN_SECONDS / 4)
    else:
        time.sleep(_REST_SECONDS if rest else _TURN_SECONDS)
