"""Lists, reads and empties the spool: the folder into which PostgreSQL archives until every store holds the file.

A file that some process has open for writing is neither read nor released nor moved (where the kernel tells).
"""

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from wal_pipeline.errors import BeingWrittenError, SpoolBusyError, SpoolError, cause_hint
from wal_pipeline.host.durable_file import move_whole
from wal_pipeline.host.file_owner import give_to_folder_owner, owner_trouble
from wal_pipeline.host.open_writers import Writer, find_writer
from wal_pipeline.host.steady_clock import SteadyTime
from wal_pipeline.wal.names import MAX_WAL_SEGMENT_SIZE, MIN_WAL_SEGMENT_SIZE, FileKind, WalFileName, parse_file_name

LOCK_NAME: Final = ".wal-pipeline.lock"
WANTED_NAME: Final = ".wal-pipeline.wanted"
_TEMPORARY_PREFIXES: Final = (".", "archtemp.")  # ours and shells' begin with a dot; basic_archive's with archtemp.
_YEAR_9999: Final = 253_370_764_800  # seconds: the last year that a datetime of Python has
_LOCK_SECONDS: Final = 3.0
_WANTED_LOOK_SECONDS: Final = 0.5
_LOCK_POLL_SECONDS: Final = 0.02
_MAX_TEXT_BYTES: Final = 1 << 20  # history and backup history files are some hundred bytes


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """One file in the spool, as it was when it was listed.

    ``spooled_at`` is its modification time, or its inode's change time where that one is no date. ``settled``: it is
    unchanged for so long that its writer would have continued.
    """

    name: WalFileName
    size_bytes: int
    spooled_at: datetime
    settled: bool
    identity: tuple[int, int, int, int]  # device, inode, size, mtime in ns: changes when the file does

    @property
    def whole_size(self) -> bool:
        """Whether a whole file of this kind can have this size: else it is still growing, or half a file."""
        if self.name.kind in (FileKind.SEGMENT, FileKind.PARTIAL):
            size = self.size_bytes
            return MIN_WAL_SEGMENT_SIZE <= size <= MAX_WAL_SEGMENT_SIZE and size & (size - 1) == 0
        return 0 < self.size_bytes <= _MAX_TEXT_BYTES


@dataclass(frozen=True, slots=True)
class SpoolListing:
    """The files in the spool. ``ready`` is in archiving order. ``growing`` files may still be written to.

    ``foreign`` names are not PostgreSQL's or not plain files, and are left alone.
    """

    ready: tuple[SpoolFile, ...]
    growing: tuple[SpoolFile, ...]
    foreign: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of all of PostgreSQL's files in the spool."""
        return sum(file.size_bytes for file in self.ready + self.growing)


class Spool:
    """A spool folder. It only ever removes a file that ``release`` or ``quarantine`` was called for."""

    def __init__(
        self,
        folder: Path,
        quarantine_folder: Path,
        settle_seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settle_seconds``: a file that is not whole and did not change for so long is half a file."""
        self.folder = folder
        self.quarantine_folder = quarantine_folder
        self._settle_seconds = settle_seconds
        self._steady = SteadyTime(folder, settle_seconds / 4, monotonic)
        self._monotonic = monotonic
        self._wanted_looked_at = float("-inf")

    def scan(self, now: datetime) -> SpoolListing:
        """List the spool. ``now`` tells which files have settled.

        Raises: SpoolError where the folder cannot be read.
        """
        ready: list[SpoolFile] = []
        growing: list[SpoolFile] = []
        foreign: list[str] = []
        age = self._steady.ages(now.timestamp())
        for entry in self._entries():
            if entry.name.startswith(_TEMPORARY_PREFIXES):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # released since the folder was read
            name = parse_file_name(entry.name)
            if name is None or not stat.S_ISREG(status.st_mode):
                foreign.append(entry.name)
                continue
            file = self._describe(name, status, age)
            (ready if file.whole_size or file.settled else growing).append(file)
        ready.sort(key=lambda file: file.name.order)
        return SpoolListing(tuple(ready), tuple(growing), tuple(sorted(foreign)))

    def find(self, name: WalFileName, now: datetime) -> SpoolFile | None:
        """Describe one file; None where it is not in the spool or not a plain file."""
        try:
            status = (self.folder / name.name).lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error("cannot be read", error) from error
        age = self._steady.ages(now.timestamp())
        return self._describe(name, status, age) if stat.S_ISREG(status.st_mode) else None

    def changed_ns(self) -> int:
        """Return when a name last came into the folder or left it, in ns: a cheap way to see that nothing is new."""
        try:
            return self.folder.stat().st_mtime_ns
        except OSError as error:
            raise self._error("cannot be read", error) from error

    def read(self, file: SpoolFile) -> bytes | None:
        """Return the file's bytes, or None where it changed or went since it was listed: list again.

        Follows no symbolic link, opens nothing but a plain file. Raises: BeingWrittenError, SpoolError.
        """
        try:
            with self._opened(file) as descriptor:
                if descriptor is None:
                    return None
                with open(descriptor, "rb", closefd=False) as opened:
                    data = opened.read(file.size_bytes + 1)
                self._refuse_writer(file, descriptor)  # one that came meanwhile
                unchanged = _identity(os.fstat(descriptor)) == file.identity and len(data) == file.size_bytes
        except OSError as error:
            raise self._error(f"has '{file.name.name}', which cannot be read", error) from error
        return data if unchanged else None

    def release(self, file: SpoolFile) -> bool:
        """Remove a file that every store holds; False where it is not the file that was listed any more.

        Raises: BeingWrittenError, SpoolError.
        """
        try:
            if not self._is_still(file):
                return False
            self.path(file).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error(f"has '{file.name.name}', which cannot be removed", error) from error
        return True

    def quarantine(self, file: SpoolFile, now: datetime) -> Path | None:
        """Move a file that may not be archived out of the spool, under a name that is not taken, and return it.

        None, and nothing moved, where it is not the file that was listed any more: half a file that goes on growing
        may become a good one. Raises: BeingWrittenError, SpoolError.
        """
        try:
            if not self._is_still(file):
                return None
            self._make_quarantine()
            target = self._free_name(f"{file.name.name}.{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}")
            move_whole(self.path(file), target)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SpoolError(
                f"'{file.name.name}' cannot be moved to quarantine in '{self.quarantine_folder}': {error.strerror}",
                hint=cause_hint(error)
                or "The file stays in the spool. Make the folder writable, or set WAL_PIPELINE_QUARANTINE_FOLDER.",
            ) from error
        return target

    def has_no_writer(self, file: SpoolFile) -> bool:
        """Whether it is known that no process has the file open for writing. Raises: SpoolError."""
        try:
            with self._opened(file) as descriptor:
                return descriptor is not None and find_writer(descriptor, self.folder) is Writer.NONE
        except BeingWrittenError:
            return False
        except OSError as error:
            raise self._error(f"has '{file.name.name}', which cannot be read", error) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one of our processes that archives from this spool; the kernel ends it with the process.

        A run that only waits for files ends for whoever wants the lock.

        Raises: SpoolBusyError where another one is, SpoolError.
        """
        descriptor = self._open_lock()
        try:
            self._take_lock_when_free(descriptor)
            yield
        finally:
            os.close(descriptor)

    def busy(self) -> bool:
        """Whether another process holds the lock now. Raises: SpoolError."""
        descriptor = self._open_lock()
        try:
            self._take_lock(descriptor, fcntl.LOCK_SH)  # shared: two that only look do not see each other
        except SpoolBusyError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """Ask a run that only waits for files to end; its next look sees it (``is_wanted``). Raises: SpoolError."""
        descriptor = self._open_lock(WANTED_NAME)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        except OSError as error:
            raise self._error("cannot be locked", error) from error
        finally:
            os.close(descriptor)

    def is_wanted(self) -> bool:
        """Whether another process asks for the lock now; looked at twice a second at most.

        Where that cannot be seen, nobody asks: a full disk or another user's file must not end a run.
        """
        now = self._monotonic()
        if now - self._wanted_looked_at < _WANTED_LOOK_SECONDS:
            return False
        self._wanted_looked_at = now
        try:
            descriptor = os.open(self.folder / WANTED_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _try_to_lock(descriptor, fcntl.LOCK_EX)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def free_bytes(self) -> int:
        """Return the bytes that the spool's disk has free."""
        try:
            return shutil.disk_usage(self.folder).free
        except OSError as error:
            raise self._error("cannot be read", error) from error

    def path(self, file: SpoolFile) -> Path:
        """Return where the file lies."""
        return self.folder / file.name.name

    @contextmanager
    def _opened(self, file: SpoolFile) -> Iterator[int | None]:
        """Open the very file that was listed; None where it is another one or gone. Raises: BeingWrittenError."""
        try:
            descriptor = os.open(self.path(file), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            if _identity(os.fstat(descriptor)) != file.identity:
                yield None
                return
            self._refuse_writer(file, descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _is_still(self, file: SpoolFile) -> bool:
        """Whether the file is the one that was listed, as it was. Raises: BeingWrittenError, OSError."""
        if _identity(self.path(file).lstat()) != file.identity:
            return False
        try:
            with self._opened(file) as descriptor:
                return descriptor is not None
        except PermissionError:  # who may remove a file need not be able to read it, and then cannot tell more
            return True

    def _refuse_writer(self, file: SpoolFile, descriptor: int) -> None:
        if find_writer(descriptor, self.folder) is Writer.OPEN:
            raise BeingWrittenError(
                f"'{file.name.name}' is still being written: a process has it open for writing",
                hint="It is archived once that process has closed it. 'fuser' or 'lsof' shows which one it is.",
            )

    def _make_quarantine(self) -> None:
        """Make the folder where there is none; as root for the spool's owner: it may lie where everything is root's."""
        if self.quarantine_folder.is_dir():
            return
        self.quarantine_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            spool = self.folder.stat()
            os.chown(self.quarantine_folder, spool.st_uid, spool.st_gid)

    def _open_lock(self, name: str = LOCK_NAME) -> int:
        """Open a lock's file for reading, which is enough to lock it, so that whoever made it can be another user."""
        path = self.folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        except PermissionError as error:
            raise self._error("cannot be written", error, owner_trouble([path, self.folder], os.R_OK)) from error
        except OSError as error:
            raise self._error("cannot be written", error) from error
        give_to_folder_owner(path)
        return descriptor

    def _take_lock_when_free(self, descriptor: int) -> None:
        """Lock, and wait a moment for a run that ends for us. Raises: SpoolBusyError."""
        try:
            self._take_lock(descriptor, fcntl.LOCK_EX)
        except SpoolBusyError:
            with self.wanted():
                self._take_lock(descriptor, fcntl.LOCK_EX, _LOCK_SECONDS)

    def _take_lock(self, descriptor: int, how: int, patience_seconds: float = 0.0) -> None:
        """Lock. The patience is for who only looks whether the spool is busy, and holds the lock for an instant."""
        deadline = time.monotonic() + patience_seconds
        try:
            while not (taken := _try_to_lock(descriptor, how)) and time.monotonic() < deadline:
                time.sleep(_LOCK_POLL_SECONDS)
        except OSError as error:
            raise self._error("cannot be locked", error) from error
        if not taken:
            raise SpoolBusyError(
                f"spool '{self.folder}' is being archived by another process",
                hint="Wait for the archiving run that is in flight; its run or terminal shows how far it is.",
            )

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.folder) as entries:
                return list(entries)
        except OSError as error:
            raise self._error("cannot be read", error) from error

    def _describe(self, name: WalFileName, status: os.stat_result, age: Callable[[float], float]) -> SpoolFile:
        # The inode's change time: 'cp -p' cannot set it.
        settled = age(status.st_ctime) >= self._settle_seconds
        return SpoolFile(name, status.st_size, _spooled_at(status), settled, _identity(status))

    def _free_name(self, wanted: str) -> Path:
        names = (self.quarantine_folder / (wanted + suffix) for suffix in ["", *(f".{n}" for n in range(1, 1000))])
        return next(name for name in names if not os.path.lexists(name))

    def _error(self, what: str, error: OSError, trouble: str | None = None) -> SpoolError:
        return SpoolError(
            f"spool '{self.folder}' {what}: {error.strerror}",
            hint=cause_hint(error)
            or (f"{trouble}." if trouble is not None else None)
            or "PG_WAL_ARCHIVE_DIR must name a folder that PostgreSQL writes and this user can read and write; "
            "'wal-pipeline setup' shows what is missing.",
        )


def _try_to_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _spooled_at(status: os.stat_result) -> datetime:
    """Return the time of modification, which a copy may bring from anywhere; else when the inode changed."""
    at = next((at for at in (status.st_mtime, status.st_ctime) if 0 <= at < _YEAR_9999), 0.0)
    return datetime.fromtimestamp(at, UTC)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
