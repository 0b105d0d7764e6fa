"""Moves a file into a folder under its own name, durably, and never over a file that is there."""

import errno
import filecmp
import os
from pathlib import Path

from wal_pipeline.host.durable_file import sync_folder, write_whole
from wal_pipeline.host.file_owner import give_to_folder_owner

_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)


def put_once(source: Path, folder: Path) -> bool:
    """Move a finished file into another folder; False where that has the name with other content, and all stays.

    The same name with the same content is success, and ``source`` goes. At any moment one of the two is whole and on
    disk. Raises: OSError.
    """
    destination = folder / source.name
    try:
        _link(source, destination)
    except FileExistsError:
        if not filecmp.cmp(source, destination, shallow=False):
            return False
        _sync(destination)  # whoever put it there may have crashed before it was on disk
    sync_folder(folder)
    source.unlink()
    sync_folder(source.parent)
    return True


def _link(source: Path, destination: Path) -> None:
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
