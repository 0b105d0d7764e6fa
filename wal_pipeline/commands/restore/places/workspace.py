"""Marks and locks the folders of a restore while it is at work, so that what a killed one left is known as its own."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from wal_pipeline.errors import RestoreError
from wal_pipeline.host.durable_file import sync_folder
from wal_pipeline.host.mounts import LOST_AND_FOUND

WORK_NAME: Final = ".wal-pipeline-restore"
NOT_CONTENT: Final = (LOST_AND_FOUND, WORK_NAME)
_MARK: Final = "mark"
_LOST_WRITES: Final = "lost_writes"
_COMBINED: Final = "combined"
_STAGING: Final = "staging"
_STARTED_SINCE: Final = ("postmaster.opts", "postmaster.pid")  # in no base backup: a server has been started here
_MOST_MARK_BYTES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Workspace:
    """The hidden folder in the data directory in which a restore works, while it holds its lock.

    It lies on the data directory's own disk, and can be written where the data directory can: beside a mount point
    neither is so. ``staging`` takes the objects that were downloaded, elsewhere where the request says so.
    ``was_left``: an earlier restore did not end here, and no server was started since.
    """

    pgdata: Path
    staging: Path
    was_left: bool
    _mark: int

    def begin(self, folders: Sequence[Path]) -> None:
        """Mark the data directory, then the other folders that the restore fills, and make the staging folder.

        Raises: RestoreError where a folder is marked by another restore, OSError.
        """
        text = json.dumps(
            {
                "what": "a wal-pipeline restore that has not ended: start it again, or remove these folders",
                "pgdata": str(self.pgdata),
                "folders": [str(folder) for folder in folders],
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "begun_at": datetime.now(UTC).isoformat(),
            }
        ).encode()
        self._write_mark(text)
        sync_folder(self.pgdata / WORK_NAME)
        sync_folder(self.pgdata)
        for name in _STARTED_SINCE:  # of the cluster that is replaced: from now on the mark counts
            (self.pgdata / name).unlink(missing_ok=True)
        for folder in folders:
            _mark_other(folder, self.pgdata, text)
        for path in (self.staging, combined(self.pgdata), *map(combined, folders)):
            remove_tree(path)
        self.staging.mkdir(mode=0o700, parents=True)

    def say_lost_writes(self) -> None:
        """Say in the mark that the disk lost some of what was written.

        The kernel goes on to show those bytes from memory, so that the next restore would find them right.
        """
        value = {**(_mark_in(self.pgdata) or {}), _LOST_WRITES: True}
        with suppress(OSError):  # that disk may take nothing any more, and what it did not take is read no more either
            self._write_mark(json.dumps(value).encode())

    def _write_mark(self, text: bytes) -> None:
        os.pwrite(self._mark, text + b"\n", 0)  # its first line counts, so that a kill in between leaves a mark
        os.ftruncate(self._mark, len(text) + 1)
        os.fsync(self._mark)

    def end(self, folders: Sequence[Path]) -> None:
        """Remove the marks, the data directory's last: from now on it is a cluster as any other."""
        remove_tree(self.staging)
        for folder in folders:
            remove_tree(folder / WORK_NAME)
        _remove_work_folder(self.pgdata)


def combined(folder: Path) -> Path:
    """Return where a folder's content is put together before it is moved into the folder itself."""
    return folder / WORK_NAME / _COMBINED


@contextmanager
def workspace(pgdata: Path, work_dir: Path | None = None) -> Iterator[Workspace]:
    """Hold the lock on the data directory's mark while the block runs. The data directory is made where it is missing.

    The kernel gives the lock back however the process ends. After an error the mark stays where ``begin`` was called;
    else nothing stays.

    Raises: RestoreError where another restore is at work there, or the folder cannot be made.
    """
    missing = [path for path in (pgdata, *pgdata.parents) if not path.exists()]
    mark = _locked_mark(pgdata)
    try:
        staging = pgdata / WORK_NAME / _STAGING if work_dir is None else work_dir / _name_elsewhere(pgdata)
        yield Workspace(pgdata, staging, left_by_restore(pgdata), mark)
    finally:
        if not os.pread(mark, 1, 0):
            _remove_work_folder(pgdata)
            for made in missing:
                with suppress(OSError):
                    made.rmdir()
        os.close(mark)


def left_by_restore(pgdata: Path) -> bool:
    """Return whether a restore began to fill the folder and did not end, and no server was started there since."""
    if any(os.path.lexists(pgdata / name) for name in _STARTED_SINCE):
        return False
    return is_left_for(pgdata, pgdata)


def lost_writes(pgdata: Path) -> bool:
    """Return whether a restore into the folder ended because the disk had lost what was written: nothing is right."""
    return left_by_restore(pgdata) and bool((_mark_in(pgdata) or {}).get(_LOST_WRITES))


def may_keep(pgdata: Path, *, delta: bool) -> bool:
    """Return whether files that lie in the folder may stay where they are right. True only until ``begin``."""
    return (delta or left_by_restore(pgdata)) and not lost_writes(pgdata)


def refuse_other_restore(pgdata: Path) -> None:
    """Refuse a data directory in which a restore is at work. Raises: RestoreError."""
    path = pgdata / WORK_NAME / _MARK
    try:
        mark = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # none, or no folder of ours: whoever locks it says so
    try:
        _lock(pgdata, path, mark, fcntl.LOCK_SH)
    finally:
        os.close(mark)


def is_left_for(folder: Path, pgdata: Path) -> bool:
    """Return whether a restore into ``pgdata`` began to fill a folder, such as a tablespace's, and did not end."""
    found = _marked_for(folder)
    return found is not None and Path(found).resolve() == pgdata.resolve()


def remove_tree(folder: Path) -> None:
    """Remove a folder, whatever is in it."""
    with suppress(OSError):
        shutil.rmtree(folder)


def empty(
    folder: Path, on_remove: Callable[[Path], object] = lambda _: None, keep: Sequence[str] = NOT_CONTENT
) -> None:
    """Remove everything in a folder but ``keep``, not the folder; links are removed and not followed.

    A file system that is mounted in it stays mounted, and is emptied.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name in keep:
            continue
        on_remove(path)
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        elif os.path.ismount(path):
            empty(path, keep=(LOST_AND_FOUND,))
        else:
            shutil.rmtree(path)


def move_up(folder: Path) -> None:
    """Move what was put together for a folder into it: renames on one disk. Raises: OSError."""
    _move_into(combined(folder), folder)
    remove_tree(combined(folder))


def _move_into(source: Path, target: Path) -> None:
    for path in source.iterdir():
        there = target / path.name
        if path.is_dir() and not path.is_symlink() and there.is_dir():  # pg_wal may be a link to another disk
            _move_into(path, there)
        else:
            shutil.move(path, there)


def _name_elsewhere(pgdata: Path) -> str:
    return f"wal-pipeline-restore-{pgdata.name}-{sha256(os.fsencode(pgdata)).hexdigest()[:8]}"


def _make_own(folder: Path) -> None:
    """Make a folder of ours, or take over one that a restore left. Raises: OSError where it is anything else."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or not folder.is_dir():
        raise NotADirectoryError(20, "it is there, and not a folder", str(folder))
    if folder.stat().st_uid != os.geteuid():
        os.chown(folder, os.geteuid(), os.getegid(), follow_symlinks=False)


def require_unmarked(folder: Path, pgdata: Path) -> None:
    """Refuse a folder that a restore into another data directory fills. Raises: RestoreError."""
    found = _marked_for(folder)
    if found is not None and not is_left_for(folder, pgdata):
        raise RestoreError(
            f"'{folder}' is being filled by a restore into '{found}', or was left by one",
            hint="Give another folder; or, where that restore is of no use any more, remove this one.",
        )


def _mark_other(folder: Path, pgdata: Path, text: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_unmarked(folder, pgdata)
    _make_own(folder / WORK_NAME)
    descriptor = os.open(
        folder / WORK_NAME / _MARK, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        os.write(descriptor, text + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _marked_for(folder: Path) -> str | None:
    """Return the data directory that the mark in a folder names; None where there is no mark of a restore."""
    pgdata = (_mark_in(folder) or {}).get("pgdata")
    return pgdata if isinstance(pgdata, str) else None


def _mark_in(folder: Path) -> dict[str, Any] | None:
    """Return what the mark in a folder says; None where there is none that can be read."""
    try:
        descriptor = os.open(folder / WORK_NAME / _MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        value = json.loads(os.read(descriptor, _MOST_MARK_BYTES).split(b"\n", 1)[0])
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)
    return value if isinstance(value, dict) else None


def _locked_mark(pgdata: Path) -> int:
    """Make the data directory and its mark where they are missing; return the descriptor of the locked mark."""
    path = pgdata / WORK_NAME / _MARK
    while True:
        try:
            pgdata.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_own(path.parent)
            mark = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # its holder removed the folder as we opened it
        except OSError as error:
            raise RestoreError(
                f"'{path.parent}' cannot be made: {error.strerror}",
                hint=f"The user who restores must be able to write in '{pgdata}'.",
            ) from error
        try:
            _lock(pgdata, path, mark)
            if os.path.samestat(os.fstat(mark), path.lstat()):
                return mark
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(mark)
            raise
        os.close(mark)  # of a file that its holder removed as we opened it


def _lock(pgdata: Path, path: Path, mark: int, how: int = fcntl.LOCK_EX) -> None:
    try:
        fcntl.flock(mark, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RestoreError(
            f"another restore into '{pgdata}' is at work: it holds the lock '{path}'",
            hint="Wait until it ends, or stop it, then start again.",
        ) from None
    except OSError as error:
        raise RestoreError(f"'{path}' cannot be locked: {error.strerror}") from error


def _remove_work_folder(pgdata: Path) -> None:
    """Remove what is in the work folder, the mark last, then the folder."""
    folder = pgdata / WORK_NAME
    with suppress(OSError):
        empty(folder, keep=(_MARK,))
        (folder / _MARK).unlink(missing_ok=True)
        folder.rmdir()
