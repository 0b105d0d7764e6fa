"""Decides which folders a restore may fill and which --force may empty first, and locks the data directory."""

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wal_pipeline.commands.restore.checks import TablespaceMove
from wal_pipeline.commands.restore.untar import HELD_BACK
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.postmaster import find_server

_TABLESPACES: Final = "pg_tblspc"
_OF_A_CLUSTER: Final = ("PG_VERSION", "global/pg_control", HELD_BACK, _TABLESPACES)  # the last: a restore that failed
_OF_A_TABLESPACE: Final = re.compile(r"PG_[0-9]+_[0-9]+\Z|lost\+found\Z")


def check_folders(pgdata: Path, moves: Sequence[TablespaceMove], *, force: bool) -> tuple[Path, ...]:
    """Return the folders to empty; only ``force`` allows any.

    Raises: RestoreError for a folder that is in use, is another's, or is not empty without ``force``.
    """
    found = [pgdata] if check_data_directory(pgdata, force=force) else []
    ours = _linked_folders(pgdata)
    found += [move.new for move in moves if _check_tablespace(move, ours, force=force)]
    return tuple(found)


def check_data_directory(folder: Path, *, force: bool) -> bool:
    """Return whether a data directory must be emptied. Raises: RestoreError where it must not."""
    if not _holds_something(folder, "data directory"):
        return False
    if not force:
        raise RestoreError(
            f"the data directory '{folder}' is not empty",
            hint="Restore into another folder, or remove what is in this one with --force.",
        )
    if not any((folder / name).exists() for name in _OF_A_CLUSTER):
        raise RestoreError(
            f"the data directory '{folder}' is not empty and does not hold a PostgreSQL cluster",
            hint="--force removes only what was a cluster; remove other files yourself.",
        )
    return True


def _check_tablespace(move: TablespaceMove, ours: frozenset[Path], *, force: bool) -> bool:
    """Return whether a tablespace's folder must be emptied. Its name comes from the store, or from a person.

    No postmaster.pid lies in a tablespace: only the links in the replaced data directory, whose server does not run,
    tell that no running server uses it. And one holds nothing but folders such as ``PG_18_202506291`` (relpath.h:
    TABLESPACE_VERSION_DIRECTORY).
    """
    folder = move.new
    if not _holds_something(folder, "tablespace folder"):
        return False
    elsewhere = f"Give it a new folder: --tablespace-map {move.oid}=/new/folder"
    strange = [path.name for path in folder.iterdir() if not _OF_A_TABLESPACE.match(path.name)]
    if strange:
        raise RestoreError(
            f"the tablespace folder '{folder}' holds '{min(strange)}', which is not of a tablespace", hint=elsewhere
        )
    if folder.resolve() not in ours:
        raise RestoreError(
            f"the tablespace folder '{folder}' is not empty and not of the cluster that is replaced: "
            "another server may use it",
            hint=elsewhere,
        )
    if not force:
        raise RestoreError(f"the tablespace folder '{folder}' is not empty", hint=elsewhere)
    return True


def _linked_folders(pgdata: Path) -> frozenset[Path]:
    """Return the folders of the tablespaces that are a data directory's own: it links to them."""
    links = pgdata / _TABLESPACES
    return frozenset(path.resolve() for path in links.iterdir() if path.is_symlink()) if links.is_dir() else frozenset()


def _holds_something(folder: Path, what: str) -> bool:
    """Return whether anything is in a folder; a file system's own lost+found does not count.

    Raises: RestoreError for what is no folder, or is one of a running server.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise RestoreError(f"the {what} '{folder}' is not a folder")
    check_not_running(folder)
    return any(path.name != "lost+found" for path in folder.iterdir())


@contextmanager
def locked(pgdata: Path) -> Iterator[None]:
    """Keep other restores out of a data directory while the block runs, with a lock on a file beside it.

    Raises: RestoreError where another restore is at work there.
    """
    path = pgdata.with_name(f".{pgdata.name}.wal-pipeline-restore.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _lock(path)
    except OSError as error:
        raise RestoreError(f"'{path}' cannot be locked: {error.strerror}") from error
    if descriptor is None:
        raise RestoreError(
            f"another restore into '{pgdata}' is at work: it holds the lock '{path}'",
            hint="Wait until it ends, or stop it, then start again.",
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Return the descriptor of the file that is locked now; None where another process holds the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # of a file that its holder removed as we opened it


def check_not_running(pgdata: Path) -> None:
    """Refuse a folder in which a server runs, or may run. Raises: RestoreError."""
    try:
        found = find_server(pgdata)
    except PostgresError as error:
        raise RestoreError(error.message) from error
    if found is not None:
        raise RestoreError(found.message, hint=found.hint)
