"""Put files in place so that they are there whole or not at all, also after a crash of the machine."""

import errno
import os
import shutil
from pathlib import Path
from typing import Final

from wal_pipeline.errors import RestoreError

# Linux keeps what one write brings in folios of up to its size. From 2 MiB on they are taken from whole free blocks,
# which a virtual machine may have given back to its host: 16 MiB in one write took 25 to 35 ms of CPU, in such 5 ms.
_WRITE_BYTES: Final = 256 * 1024


def write_durably(data: bytes, destination: Path) -> None:
    """Put ``data`` at ``destination``: whole or not at all, also after a crash of the machine.

    Raises: RestoreError.
    """
    _remove_leftovers(destination)
    view = memoryview(data)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - the descriptor was opened with its own flags
            for start in range(0, len(data), _WRITE_BYTES):
                file.write(view[start : start + _WRITE_BYTES])
            file.flush()
            os.fsync(descriptor)
        temporary.replace(destination)
        sync_folder(destination.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RestoreError(f"'{destination}' cannot be written: {error.strerror}") from error


def move_durably(source: Path, target: Path) -> None:
    """Rename, or copy and then unlink where the target is on another file system; both names are durable after it.

    Raises: OSError.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            shutil.copyfile(source, temporary, follow_symlinks=False)
            with temporary.open("rb") as copied:
                os.fsync(copied.fileno())
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)
        source.unlink()
    sync_folder(target.parent)
    sync_folder(source.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(destination: Path) -> None:
    """Remove what a killed call for the same destination left behind, so that pg_wal does not fill up."""
    for path in destination.parent.glob(f".{destination.name}.*.tmp"):
        pid = path.name.removesuffix(".tmp").rsplit(".", 1)[-1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)
