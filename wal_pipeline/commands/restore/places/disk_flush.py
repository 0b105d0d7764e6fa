"""Has the disk begin early with what is written, and waits until all of it is there, told of every write that failed.

Python has neither call, so they are taken from the C library (sync_file_range(2) and syncfs(2), both of Linux).
"""

import ctypes
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Self

WINDOW_BYTES: Final = 8 << 20
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h: begin, and wait for nothing
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
    """

    def __init__(self, descriptor: int, offset_bytes: int) -> None:
        self._descriptor = descriptor
        self._begun_bytes = offset_bytes

    def reached(self, offset_bytes: int) -> None:
        """Say that the file is written up to there."""
        waiting_bytes = offset_bytes - self._begun_bytes
        if waiting_bytes >= WINDOW_BYTES:
            if _sync_file_range is not None:
                _sync_file_range(self._descriptor, self._begun_bytes, waiting_bytes, _SYNC_FILE_RANGE_WRITE)
            self._begun_bytes = offset_bytes


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
