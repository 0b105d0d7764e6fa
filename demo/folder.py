"""Opens the folder for a demo's data, which no other demo uses at the same time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from wal_pipeline.errors import WalPipelineError

DEFAULT_PARENT = Path(__file__).parents[1] / ".demo"
_MARK = ".wal-pipeline-demo"  # the demo empties no folder without this file
_MODE = 0o711  # PostgreSQL may run as another user, who must reach the folders below


class DemoError(WalPipelineError):
    """The demo cannot start, or a promise of it does not hold."""


@contextmanager
def open_folder(chosen: Path | None) -> Iterator[Path]:
    """Empty the chosen folder, or the first of ``.demo/1``, ``.demo/2``, … that no demo uses, and keep it.

    Raises: DemoError where the chosen folder is in use or holds something that is not a demo's.
    """
    if chosen is not None:
        folder = chosen.absolute()
        lock = _take(folder)
        if lock is None:
            raise DemoError(f"folder '{folder}' is used by another demo", hint="Give another folder with --folder.")
    else:
        folder, lock = next(taken for number in count(1) if (taken := _try(DEFAULT_PARENT / str(number))))
    try:
        _empty(folder)
        yield folder
    finally:
        os.close(lock)


def _try(folder: Path) -> tuple[Path, int] | None:
    lock = _take(folder)
    return None if lock is None else (folder, lock)


def _take(folder: Path) -> int | None:
    """Lock the folder for this process. The kernel releases the lock however the process ends."""
    mark = folder / _MARK
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise DemoError(
            f"folder '{folder}' is not empty and was not made by the demo",
            hint="Give an empty folder, or one that does not exist.",
        )
    folder.mkdir(mode=_MODE, parents=True, exist_ok=True)
    lock = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == _MARK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
