"""Keeps files under ``/``-separated keys below one folder, and never follows a symbolic link."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderTree:
    """One tree of files. Callers have checked the keys (``check_key``). Every method may raise OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, key: str) -> int | None:
        """Return a descriptor of a key's file to read from; None where there is none."""
        if self.status(key) is None:
            return None
        try:
            with self._parent(key) as (folder, name):
                return os.open(name, _READ, dir_fd=folder)
        except FileNotFoundError:
            return None

    def status(self, key: str) -> os.stat_result | None:
        """Return the status of a key's file; None where there is none, or a folder."""
        try:
            with self._parent(key) as (folder, name):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise _foreign(key)
        return status

    def link(self, source: Path, key: str) -> None:
        """Give a whole, synced file its key, durably. Raises: FileExistsError."""
        with self._parent(key, create=True) as (folder, name):
            os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
            os.fsync(folder)

    def remove(self, key: str) -> bool:
        """Remove a key's file, durably, and folders that are empty then; False where there was none."""
        try:
            with self._parent(key) as (folder, name):
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
        except FileNotFoundError:
            return False
        self._remove_empty_folders(key)
        return True

    def walk(self, prefix: str, start_after: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield keys and their status in ascending order of the keys' bytes."""
        yield from _walk(self.root, "", prefix, start_after.encode())

    def _remove_empty_folders(self, key: str) -> None:
        with suppress(OSError):  # the first folder that is not empty ends the loop
            for parent in Path(key).parents[:-1]:
                (self.root / parent).rmdir()

    @contextmanager
    def _parent(self, key: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder of a key, part by part, and give it with the file's name."""
        *folders, name = key.split("/")
        folder = os.open(self.root, _FOLDER)
        try:
            for part in folders:
                folder = _step(folder, part, create=create)
            yield folder, name
        finally:
            os.close(folder)


def _step(folder: int, part: str, *, create: bool) -> int:
    """Open one folder below another and close the outer one; where that fails, the caller closes the outer one."""
    if create:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=folder)
            os.fsync(folder)
    inner = os.open(part, _FOLDER, dir_fd=folder)
    os.close(folder)
    return inner


def _walk(folder: Path, base: str, prefix: str, after: bytes) -> Iterator[tuple[str, os.stat_result]]:
    for key, entry in _entries(folder, base):
        if key.endswith("/"):
            # Only a folder that may have a key that matches and comes after is entered.
            if (key.startswith(prefix) or prefix.startswith(key)) and not _is_before(key, after):
                yield from _walk(folder / entry.name, key, prefix, after)
        elif key.startswith(prefix) and key.encode() > after:
            with suppress(FileNotFoundError):  # deleted meanwhile
                yield key, entry.stat(follow_symlinks=False)


def _entries(folder: Path, base: str) -> list[tuple[str, os.DirEntry[str]]]:
    """Return a folder's files and folders (with ``/``) as keys, in the order of all keys below them."""
    try:
        with os.scandir(folder) as entries:
            found = [(base + entry.name + ("/" if _is_folder(entry) else ""), entry) for entry in entries]
    except FileNotFoundError:  # removed meanwhile
        return []
    for key, entry in found:
        if not _is_folder(entry) and not entry.is_file(follow_symlinks=False):
            raise _foreign(key)
    return sorted(found, key=lambda pair: pair[0].encode())


def _foreign(key: str) -> OSError:
    # Left out, the objects behind a symbolic link would look absent.
    return OSError(errno.ELOOP, f"'{key}' is a symbolic link or a special file")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_before(folder_key: str, after: bytes) -> bool:
    """Return whether every key of a folder comes before ``after``."""
    encoded = folder_key.encode()
    return encoded < after[: len(encoded)]
