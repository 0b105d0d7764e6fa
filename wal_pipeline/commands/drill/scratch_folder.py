"""Makes and locks a drill's scratch folder, removes it at the end, and after a kill at the next drill."""

import fcntl
import json
import logging
import os
import select
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.postmaster import works_in

MARK: Final = ".wal-pipeline-drill"
PGDATA: Final = "pgdata"
FETCH_FOLDER: Final = "fetch"
_STOP_SECONDS: Final = 60.0
_HINT: Final = (
    "Make sure that no drill and no server runs there, and remove it; WAL_PIPELINE_DRILL_FOLDER names another."
)
_log = logging.getLogger(__name__)


@contextmanager
def scratch_folder(folder: Path, store: str) -> Iterator[None]:
    """Make the folder, hold its lock, and remove it in the end. ``store`` stands in its mark, for people.

    The kernel gives the lock back however the process ends. So a folder with our mark whose lock is free was left by
    a drill that was killed: a server that still runs in it is stopped, and it is removed. A folder without our mark,
    or of another user, is never touched.

    Raises: RestoreError where the folder is in use or not a drill's, OSError where it cannot be made.
    """
    if os.path.lexists(folder):
        _clear_left(folder)
    mark = _make(folder)
    try:
        _lock(folder, mark)
        os.write(mark, json.dumps({"pid": os.getpid(), "store": store}).encode() + b"\n")
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(mark)


def _make(folder: Path) -> int:
    """Make the folder with an empty mark in it, and return the open mark."""
    try:
        folder.mkdir(mode=0o711, parents=True)
    except FileExistsError:
        raise RestoreError(f"the drill's folder '{folder}' exists", hint=_HINT) from None
    try:
        return os.open(folder / MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        folder.rmdir()
        raise


def _clear_left(folder: Path) -> None:
    """Remove the folder of a drill that was killed. Raises: RestoreError where it is not one."""
    foreign = RestoreError(f"the drill's folder '{folder}' exists", hint=_HINT)
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid():
        raise foreign
    try:
        mark = os.open(folder / MARK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise foreign from None
    try:
        if os.fstat(mark).st_uid != os.geteuid():
            raise foreign
        _lock(folder, mark)
        said = os.read(mark, 1000).decode(errors="replace").strip()
        if not said:  # a drill that is just beginning: it writes its mark once it has the lock
            raise foreign
        _stop_server(folder / PGDATA)
        shutil.rmtree(folder)
        _log.warning("removed the folder '%s' of a drill that was killed: %s", folder, said)
    except OSError as error:
        raise RestoreError(f"the left folder '{folder}' cannot be removed: {error}", hint=_HINT) from error
    finally:
        os.close(mark)


def _lock(folder: Path, mark: int) -> None:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RestoreError(f"a drill is running in '{folder}'", hint="Wait until it has ended.") from None


def _stop_server(pgdata: Path) -> None:
    """Stop the server that runs in a data directory: fast, then at once. Raises: RestoreError where it goes on.

    Its pid may have gone to another process since: it counts only if postmaster.pid names this data directory and the
    process works in it, as a postmaster does. The signal goes through a pidfd, which can mean no other process.
    """
    try:
        lines = (pgdata / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        pid, named = int(lines[0]), Path(lines[1])
        process = os.pidfd_open(pid)
    except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
        return
    try:
        if named.resolve() != pgdata.resolve() or not works_in(pid, pgdata):
            return
        ended = select.poll()
        ended.register(process, select.POLLIN)
        for how, seconds in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, _STOP_SECONDS / 4)):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, how)
            if ended.poll(1000 * seconds):
                return
    finally:
        os.close(process)
    raise RestoreError(f"the server of a drill that was killed, process {pid} in '{pgdata}', does not stop", hint=_HINT)
