"""Writes and moves files so that they are there whole or not at all, also after a crash of the machine."""

import errno
import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final

from wal_pipeline.host.file_owner import give_to_folder_owner

# Linux keeps what one write brings in folios of up to its size. From 2 MiB on they are taken from whole free blocks,
# which a virtual machine may have given back to its host: 16 MiB in one write took 25 to 35 ms of CPU, in such 5 ms.
_WRITE_BYTES: Final = 256 * 1024
_AS_UMASK_ALLOWS: Final = 0o666
_NO_LINKS: Final = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)
_numbers = count()


def write_whole(
    data: bytes,
    destination: Path,
    *,
    durable: bool = True,
    mode: int | None = 0o600,
    owner: tuple[int, int] | None = None,
) -> None:
    """Put ``data`` at ``destination``, whole or not at all; where ``durable``, also after a crash of the machine.

    ``mode`` is the file's exact mode, None: the one that the umask allows. ``owner`` is the user and group id to give
    it to. Raises: OSError, and ``destination`` is as it was.
    """
    with _replacing(destination, durable=durable, mode=mode, owner=owner) as file:
        view = memoryview(data)
        for start in range(0, len(data), _WRITE_BYTES):
            file.write(view[start : start + _WRITE_BYTES])


def move_whole(source: Path, destination: Path, *, sync_folders: bool = True) -> None:
    """Rename a plain file; where ``destination`` is on another file system, copy it durably, then remove it.

    ``sync_folders``: the renaming, too, survives a crash of the machine. Raises: OSError.
    """
    try:
        source.replace(destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, destination)
        source.unlink()
    if sync_folders:
        sync_folder(destination.parent)
        sync_folder(source.parent)


def put_once(source: Path, folder: Path) -> bool:
    """Move a finished file into another folder; False where that has the name with other content, and all stays.

    The same name with the same content is success, and ``source`` goes. At any moment one of the two is whole and on
    disk. Raises: OSError.
    """
    destination = folder / source.name
    try:
        _give_second_name(source, destination)
    except FileExistsError:
        if not filecmp.cmp(source, destination, shallow=False):
            return False
        _sync_file(destination)  # whoever put it there may have crashed before it was on disk
    sync_folder(folder)
    source.unlink()
    sync_folder(source.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(source: Path, destination: Path) -> None:
    opened = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with (
        open(opened, "rb") as file,  # noqa: PTH123 - the descriptor was opened with its own flags
        _replacing(destination, durable=True, mode=None, owner=None) as copied,
    ):
        shutil.copyfileobj(file, copied, _WRITE_BYTES)


@contextmanager
def _replacing(
    destination: Path, *, durable: bool, mode: int | None, owner: tuple[int, int] | None
) -> Iterator[BinaryIO]:
    """Give a new file beside ``destination``, which takes its place at the end of the block, or goes on an error."""
    _remove_leftovers(destination)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.{next(_numbers)}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with _create(temporary, mode, owner) as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(destination)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(destination.parent)


def _create(path: Path, mode: int | None, owner: tuple[int, int] | None) -> BinaryIO:
    """Open a new file, never one that somebody else put there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    file = open(os.open(path, flags, _AS_UMASK_ALLOWS if mode is None else 0o600), "wb")  # noqa: PTH123, SIM115
    try:
        if owner is not None and os.geteuid() == 0:
            os.fchown(file.fileno(), *owner)
        if mode is not None:
            os.fchmod(file.fileno(), mode)
    except OSError:
        file.close()
        raise
    return file


def _remove_leftovers(destination: Path) -> None:
    """Remove what killed calls for the same destination left behind, so that pg_wal does not fill up."""
    prefix, suffix = f".{destination.name}.", ".tmp"
    with suppress(OSError), os.scandir(destination.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(suffix):
                pid = _writer(entry.name.removeprefix(prefix).removesuffix(suffix))
                if pid is not None and not Path(f"/proc/{pid}").exists():
                    Path(entry.path).unlink(missing_ok=True)


def _writer(mark: str) -> str | None:
    """Return the process id in a new file's name; None where the name is another file's, with a longer name."""
    pid, *number = mark.split(".")
    return pid if pid.isdigit() and len(number) <= 1 and all(map(str.isdigit, number)) else None


def _give_second_name(source: Path, destination: Path) -> None:
    """Give the file its second name; on another file system, make a copy first. Raises: FileExistsError, OSError."""
    try:
        os.link(source, destination)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        copy = destination.with_name(f".{destination.name}.copy")
        write_whole(source.read_bytes(), copy, mode=None)
        try:
            os.link(copy, destination)
        finally:
            copy.unlink()
    give_to_folder_owner(destination)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file in the making: ``path`` is its name until it is whole."""

    path: Path
    file: BinaryIO


@contextmanager
def new_file(destination: Path) -> Iterator[NewFile]:
    """Give a new file beside ``destination``, which takes that name durably at the block's end, or goes on an error.

    Only its owner may read it. Raises: FileExistsError where the name is taken, also meanwhile; OSError.
    """
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    _remove_leftovers(destination)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.{next(_numbers)}.tmp")
    try:
        with _create(temporary, 0o600, None) as file:
            yield NewFile(temporary, file)
            file.flush()
            os.fsync(file.fileno())
        _take_name(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(destination.parent)


def _take_name(temporary: Path, destination: Path) -> None:
    """Give a file a name that nobody has; where there are no links, look first. Raises: FileExistsError, OSError."""
    try:
        os.link(temporary, destination)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(destination):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination)) from None
        temporary.rename(destination)
