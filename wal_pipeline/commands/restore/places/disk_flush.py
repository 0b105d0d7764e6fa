"""Has the disk begin early with what is written, and waits until all of it is there, told of every write that failed.

Python has neither call, so they are taken from the C library (sync_file_range(2) and syncfs(2), both of Linux).
"""

import ctypes
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

WINDOW_BYTES: Final = 4 << 20
DEAR_CPU_SECONDS_A_BYTE: Final = 1e-9  # the copy itself takes a third of that or less
_BEGIN: Final = 2  # linux/fs.h: SYNC_FILE_RANGE_WRITE
_BEGIN_AND_WAIT: Final = 1 | 2 | 4  # and SYNC_FILE_RANGE_WAIT_BEFORE, SYNC_FILE_RANGE_WAIT_AFTER
_LIBRARY: Final = ctypes.CDLL(None, use_errno=True)


def _function(name: str, *types: Any) -> Callable[..., int] | None:
    """Return a function of the C library; None where it has none of that name."""
    found = getattr(_LIBRARY, name, None)
    if found is not None:
        found.argtypes = types
    return found


_sync_file_range: Final = _function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_syncfs: Final = _function("syncfs", ctypes.c_int)


class EarlyWriting:
    """Has the disk begin with one file's bytes a window after the other, as they are written in their order.

    By itself the kernel begins only after seconds, or when a tenth of the memory waits. Only advice: what fails here
    fails again in ``DiskFlush``, which says so.

    What was written stays in memory, where the server finds it, unless memory is dear: a virtual machine whose host has
    taken back its free memory gets each new page anew from there. Then windows give their pages back once they are on
    the disk, and the next ones are written into the same.
    """

    def __init__(self, descriptor: int, offset_bytes: int) -> None:
        self._descriptor = descriptor
        self._kept_from = self._begun_bytes = self._reached_bytes = offset_bytes
        self._cpu_seconds = 0.0
        self._is_dear = False

    def wrote(self, size_bytes: int, cpu_seconds: float) -> None:
        """Say that the next bytes were written, and what that took of this thread's CPU."""
        self._reached_bytes += size_bytes
        self._cpu_seconds += cpu_seconds
        window_bytes = self._reached_bytes - self._begun_bytes
        if window_bytes < WINDOW_BYTES:
            return
        self._call(self._begun_bytes, window_bytes, _BEGIN)
        self._is_dear = self._is_dear or self._cpu_seconds > DEAR_CPU_SECONDS_A_BYTE * window_bytes
        if self._is_dear:
            self._give_back(self._begun_bytes)
        self._begun_bytes, self._cpu_seconds = self._reached_bytes, 0.0

    def end(self) -> None:
        """Say that no more bytes come."""
        if self._is_dear:
            self._give_back(self._reached_bytes)

    def _give_back(self, end_bytes: int) -> None:
        """Wait until the disk has all before ``end_bytes``, and give its memory back."""
        size_bytes = end_bytes - self._kept_from
        if size_bytes:
            self._call(self._kept_from, size_bytes, _BEGIN_AND_WAIT)
            with suppress(OSError):
                os.posix_fadvise(self._descriptor, self._kept_from, size_bytes, os.POSIX_FADV_DONTNEED)
        self._kept_from = end_bytes

    def _call(self, offset_bytes: int, size_bytes: int, how: int) -> None:
        if _sync_file_range is not None:
            _sync_file_range(self._descriptor, offset_bytes, size_bytes, how)


class DiskFlush:
    """The file systems of some folders and of all that is mounted below them, opened before anything is written there.

    The kernel tells of a write that failed only whoever had the file system open by then (Linux 5.8 and later).
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        """Open them. Raises: OSError."""
        self._opened: list[tuple[Path, int]] = []
        found: set[int] = set()
        try:
            for folder in folders:
                for path, device in _places(folder):
                    if device not in found:
                        found.add(device)
                        self._opened.append((path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Wait until all that was written there is on the disks. Raises: OSError, which names the folder."""
        if _syncfs is None:
            os.sync()
            return
        for path, descriptor in self._opened:
            if _syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))

    def close(self) -> None:
        """Close the folders."""
        while self._opened:
            os.close(self._opened.pop()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _places(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield a folder, and each folder below it that lies on another device than the one above it. Follows no link."""
    device = folder.stat().st_dev
    yield folder, device
    left = [(folder, device)]
    while left:
        above, device = left.pop()
        try:
            with os.scandir(above) as entries:
                below = [
                    (Path(entry.path), entry.stat(follow_symlinks=False))
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except PermissionError:  # such as the lost+found of a file system, in which nothing of ours lies
            continue
        for path, status in below:
            if stat.S_ISDIR(status.st_mode):
                left.append((path, status.st_dev))
                if status.st_dev != device:
                    yield path, status.st_dev
