"""Fetch the next segments ahead of replay, so that a ``restore_command`` only has to move a file.

The folder of one PGDATA and system identifier holds

``<segment>``       a verified, durable segment, which the restore command's ``mv`` takes;
``.<segment>…tmp``  one that is being written;
``.<file>…answer``  one that is handed to whoever asked for it;
``position``        the segment that was last asked of the program, and its size: replay is there;
``socket``          where the prefetcher answers what was not fetched ahead (``fetch_answer``);
``lock``            held by the one prefetcher that works in the folder.

Only segments are fetched ahead: a segment's content never changes, while the absence of a history file may end.
"""

import fcntl
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wal_pipeline.commands.archive_get import FetchedWal
from wal_pipeline.commands.restore_files import write_durably
from wal_pipeline.errors import RestoreError, WalPipelineError
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name, require_file_name, segment_name

POSITION_NAME: Final = "position"
LOCK_NAME: Final = "lock"
_TURN_SECONDS: Final = 0.02
_REST_AFTER_SECONDS: Final = 2.0
_REST_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Position:
    """Where replay is: the last segment that was asked of the program, and the size of a segment in bytes."""

    name: WalFileName
    wal_segment_size: int


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


class PrefetchFolder:
    """The folder of files that were fetched ahead."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self, name: WalFileName, destination: Path) -> bool:
        """Move a file that was fetched ahead to ``destination``; False where there is none."""
        ready = self.path / name.name
        try:
            ready.replace(destination)
        except FileNotFoundError:
            return False
        except OSError:  # another file system, or no permission: copy, or let the caller fetch it
            return self._copy(ready, destination)
        return True

    def _copy(self, ready: Path, destination: Path) -> bool:
        try:
            write_durably(ready.read_bytes(), destination)
            ready.unlink(missing_ok=True)
        except (OSError, RestoreError):
            return False
        return True

    def is_being_fetched(self, name: WalFileName) -> bool:
        """Whether a living prefetcher is writing or loading this file now."""
        return (self.path / f".{name.name}.loading").exists() and self.is_locked()

    def is_locked(self) -> bool:
        """Whether a prefetcher works in this folder."""
        try:
            with self.lock() as held:
                return not held
        except OSError:
            return False

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Hold the folder's lock while the block runs; yields False where another process holds it."""
        descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)

    def make(self) -> None:
        """Make the folder, for our user alone. Raises: OSError, RestoreError where it is another's."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.check(os.geteuid())

    def check(self, uid: int) -> None:
        """Refuse a folder in which another than ``uid``, who runs the recovery, or root can put WAL to replay.

        Raises: RestoreError; nothing where there is no folder yet.
        """
        try:
            parent, found = self.path.parent.stat(), self.path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise RestoreError(f"the prefetch folder '{self.path}' cannot be looked at: {error.strerror}") from error
        open_to_all = parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX
        if (
            not stat.S_ISDIR(found.st_mode)
            or not {found.st_uid, parent.st_uid} <= {uid, 0}
            or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            or open_to_all
        ):
            raise RestoreError(
                f"the prefetch folder '{self.path}' is not the recovery's alone (user id {uid}): "
                "who can write in it can have the server replay anything",
                hint="Look at who made it, then remove it, or give another with --prefetch-dir.",
            )

    def write_position(self, position: Position) -> None:
        """Tell the prefetcher where replay is. Raises: OSError."""
        self.make()
        temporary = self.path / f".{POSITION_NAME}.{os.getpid()}"
        temporary.write_text(f"{position.name.name} {position.wal_segment_size}\n", encoding="ascii")
        temporary.replace(self.path / POSITION_NAME)

    def forget_position(self) -> None:
        """Remove the position of an earlier recovery. Raises: OSError."""
        (self.path / POSITION_NAME).unlink(missing_ok=True)

    def read_position(self) -> Position | None:
        """Return where replay is; None where nothing, or nothing that can be read, was written."""
        try:
            name, size = (self.path / POSITION_NAME).read_text(encoding="ascii").split()
            parsed = parse_file_name(name)
            return None if parsed is None else Position(parsed, int(size))
        except (OSError, ValueError):
            return None

    def ready(self) -> set[str]:
        """Return the names of the files that can be taken now."""
        with os.scandir(self.path) as entries:
            return {entry.name for entry in entries if _is_segment(entry.name)}

    def remove(self, names: set[str]) -> None:
        """Remove files that replay will not ask for."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def mark(self, name: str) -> Path:
        """Return the empty file that says that ``name`` is being fetched."""
        return self.path / f".{name}.loading"

    def clear(self) -> None:
        """Remove everything but the lock and the position, such as what a killed prefetcher left."""
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.name not in (LOCK_NAME, POSITION_NAME):
                path.unlink(missing_ok=True)

    def destroy(self) -> None:
        """Remove the folder: recovery has ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.path.parent.rmdir()


def _is_segment(name: str) -> bool:
    parsed = parse_file_name(name)
    return parsed is not None and parsed.kind is FileKind.SEGMENT


@dataclass(slots=True)
class _Ahead:
    """What the prefetcher knows: where replay is, what is under way, what has been delivered."""

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
    ) -> bool:
        """Work until idle, with ``beside`` open; False where another prefetcher works in the folder already.

        ``asked_at`` tells when somebody last asked for a file, which is a sign of life too.
        """
        with self._folder.lock() as held:
            if held:
                try:
                    self._folder.clear()
                    with beside or nullcontext():
                        self._work(asked_at)
                finally:
                    self._folder.clear()
        return held

    def _work(self, asked_at: Callable[[], float]) -> None:
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
                self._load(ahead, pool)
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

    def _load(self, ahead: _Ahead, pool: ThreadPoolExecutor) -> None:
        """Collect what finished, and begin what is missing, in the order in which replay will ask."""
        self._collect(ahead)
        if self._now() < ahead.retry_at:
            return
        for name in self._wanted(ahead):
            if len(ahead.running) >= self._allowed(ahead):
                return
            if name not in ahead.delivered and name not in ahead.running:
                self._folder.mark(name).touch()
                ahead.running[name] = pool.submit(self._fetch_into_folder, name)

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
        """Fetch one file; False where it is absent or cannot be had: then the program itself says why when asked."""
        try:
            fetched = self._fetch(require_file_name(name))
            if fetched is not None:
                write_durably(fetched.data, self._folder.path / name)
        except WalPipelineError:
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
