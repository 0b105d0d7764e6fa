"""Keeps the segments that were fetched ahead of replay in a folder of their own."""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.errors import RestoreError
from wal_pipeline.host.durable_file import move_whole, write_whole
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name

POSITION_NAME: Final = "position"
LOCK_NAME: Final = "lock"


@dataclass(frozen=True, slots=True)
class Position:
    """Where replay is: the last segment that was asked of the program, and the size of a segment in bytes."""

    name: WalFileName
    wal_segment_size: int


class PrefetchFolder:
    """The folder of files that were fetched ahead, and the places in it that its users agree on."""

    def __init__(self, path: Path, *, owner: tuple[int, int] | None = None, durable: bool = True) -> None:
        """``owner``: the user and group id that take the files, where root puts them there for another user.

        ``durable``: a file that lies there is whole also after a crash of the machine.
        """
        self.path = path
        self._owner = owner
        self._durable = durable

    def put(self, data: bytes, name: str) -> None:
        """Put a file there, whole or not at all. Raises: OSError."""
        write_whole(data, self.path / name, durable=self._durable, owner=self._owner)

    def take(self, name: WalFileName, destination: Path) -> bool:
        """Move a file that was fetched ahead to ``destination``; False where there is none that can be moved."""
        try:
            move_whole(self.path / name.name, destination, sync_folders=False)
        except OSError:  # there is none, or no permission: then the caller fetches it
            return False
        return True

    def is_being_fetched(self, name: WalFileName) -> bool:
        """Whether a living prefetcher is writing or loading this file now."""
        return self.mark(name.name).exists() and self.is_locked()

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
        descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
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
        """Make the folder, for its owner alone. Raises: OSError, RestoreError where it is another's."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        if self._owner is not None and os.geteuid() == 0:
            os.chown(self.path, *self._owner, follow_symlinks=False)
        self.check(os.geteuid() if self._owner is None else self._owner[0])

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
        text = f"{position.name.name} {position.wal_segment_size}\n"
        write_whole(text.encode("ascii"), self.path / POSITION_NAME, durable=False, mode=None)

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

    def begin(self, name: str) -> None:
        """Say that ``name`` is being fetched. Raises: OSError."""
        os.close(os.open(self.mark(name), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666))

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
