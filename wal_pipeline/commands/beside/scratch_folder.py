"""Makes and locks a scratch folder, removes it at the end, and after a kill at the next use."""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.commands.beside.left_server import stop_server_in
from wal_pipeline.errors import RestoreError

PGDATA: Final = "pgdata"
FETCH_FOLDER: Final = "fetch"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScratchUse:
    """The verb that a scratch folder is for, such as ``drill``, and the ``setting`` that names another folder."""

    verb: str
    setting: str

    @property
    def mark(self) -> str:
        """The name of the file that tells a folder of this use from any other one."""
        return f".wal-pipeline-{self.verb}"

    @property
    def hint(self) -> str:
        """The way out where a folder is in the way."""
        return f"Make sure that no {self.verb} and no server runs there, and remove it; {self.setting} names another."

    def foreign(self, folder: Path) -> RestoreError:
        """Return the refusal of a folder that is not this use's, or may not be."""
        return RestoreError(f"the {self.verb}'s folder '{folder}' exists", hint=self.hint)


@contextmanager
def scratch_folder(folder: Path, use: ScratchUse, said: Mapping[str, str]) -> Iterator[None]:
    """Make the folder, hold its lock, and remove it in the end. ``said`` stands in its mark, for people.

    The kernel gives the lock back however the process ends. So a folder with our mark whose lock is free was left by
    a process that was killed: a server that still runs in it is stopped, and it is removed. A folder without our mark,
    or of another user, is never touched.

    Raises: RestoreError where the folder is in use or not of this use, OSError where it cannot be made.
    """
    if os.path.lexists(folder):
        _clear_left(folder, use)
    mark = _make(folder, use)
    try:
        _lock(folder, mark, use)
        os.write(mark, json.dumps({"pid": os.getpid(), **said}).encode() + b"\n")
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(mark)


def _make(folder: Path, use: ScratchUse) -> int:
    """Make the folder with an empty mark in it, and return the open mark."""
    try:
        folder.mkdir(mode=0o711, parents=True)
    except FileExistsError:
        raise use.foreign(folder) from None
    try:
        return os.open(folder / use.mark, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        folder.rmdir()
        raise


def _clear_left(folder: Path, use: ScratchUse) -> None:
    """Remove the folder of a process that was killed. Raises: RestoreError where it is not one."""
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid():
        raise use.foreign(folder)
    try:
        mark = os.open(folder / use.mark, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise use.foreign(folder) from None
    try:
        if os.fstat(mark).st_uid != os.geteuid():
            raise use.foreign(folder)
        _lock(folder, mark, use)
        said = os.read(mark, 1000).decode(errors="replace").strip()
        if not said:  # a process that is just beginning: it writes its mark once it has the lock
            raise use.foreign(folder)
        stop_server_in(folder / PGDATA, whose=f"a {use.verb} that was killed", hint=use.hint)
        shutil.rmtree(folder)
        _log.warning("removed the folder '%s' of a %s that was killed: %s", folder, use.verb, said)
    except OSError as error:
        raise RestoreError(f"the left folder '{folder}' cannot be removed: {error}", hint=use.hint) from error
    finally:
        os.close(mark)


def _lock(folder: Path, mark: int, use: ScratchUse) -> None:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RestoreError(f"a {use.verb} is running in '{folder}'", hint="Wait until it has ended.") from None
