"""Prepares the folder into which pg_basebackup writes a cluster with tablespaces: locked, emptied, big enough."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wal_pipeline.errors import BaseBackupError, cause_hint
from wal_pipeline.text import size

_MARGIN_BYTES: Final = 256 << 20
_LOCK_NAME: Final = "lock"
_TARS_NAME: Final = "tars"


@contextmanager
def staging(folder: Path, needed_bytes: int | None) -> Iterator[Path]:
    """Give the path of a folder that pg_basebackup makes, with room for ``needed_bytes``, and remove it at the end.

    The room is not looked at where what is needed is not known (None). The tars of a killed base backup are removed
    first. Raises: BaseBackupError where another one is using the folder, or the disk is too small.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BaseBackupError(
            f"staging folder '{folder}' cannot be used: {error.strerror}", hint=cause_hint(error)
        ) from error
    tars = folder / _TARS_NAME
    try:
        _lock(descriptor, folder)
        shutil.rmtree(tars, ignore_errors=True)
        if needed_bytes is not None:
            _require_space(folder, needed_bytes)
        yield tars
    finally:
        _remove(descriptor, tars)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.set_inheritable(descriptor, False)
        raise BaseBackupError(
            f"staging folder '{folder}' is in use by another base backup", hint="Wait until that one is finished."
        ) from error


def _require_space(folder: Path, needed_bytes: int) -> None:
    free, wanted = shutil.disk_usage(folder).free, needed_bytes + _MARGIN_BYTES
    if free < wanted:
        raise BaseBackupError(
            f"staging folder '{folder}' has {size(free)} free, expected at least {size(wanted)}",
            hint="Set the staging folder to one on a larger disk: a cluster with tablespaces cannot be streamed.",
        )


def _remove(descriptor: int, tars: Path) -> None:
    """Remove the tars while the lock is held, so that no other base backup's are removed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(tars, ignore_errors=True)
    except OSError:
        return  # the lock was never ours, and neither are the tars
    finally:
        os.close(descriptor)
