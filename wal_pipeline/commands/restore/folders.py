"""Decides which folders a restore may fill, and which of them it may empty first."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wal_pipeline.commands.restore.checks import TablespaceMove
from wal_pipeline.commands.restore.places.wal_folder import content_of
from wal_pipeline.commands.restore.places.workspace import (
    is_left_for,
    left_by_restore,
    refuse_other_restore,
)
from wal_pipeline.commands.restore.untar import HELD_BACK
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.control_file import read_control_file
from wal_pipeline.postgres.postmaster import find_server

_TABLESPACES: Final = "pg_tblspc"
_OF_A_CLUSTER: Final = ("PG_VERSION", "global/pg_control", HELD_BACK, _TABLESPACES)  # the last: a restore that failed
_OF_A_TABLESPACE: Final = re.compile(r"PG_[0-9]+_[0-9]+\Z")


def check_folders(
    pgdata: Path,
    moves: Sequence[TablespaceMove],
    *,
    force: bool,
    left: bool | None = None,
    own: int | None = None,
) -> tuple[Path, ...]:
    """Return the folders to empty: only ``force`` allows any, or the mark of a restore that did not end.

    ``left`` is that mark's answer where the caller holds its lock; by default it is looked for. ``own`` is the system
    identifier of the cluster whose folders may be changed without ``force``, because what is right in them stays.

    Raises: RestoreError for a folder that is in use, is another's, or is not empty without ``force``.
    """
    if left is None:
        refuse_other_restore(pgdata)
        left = left_by_restore(pgdata)
    found = [pgdata] if check_data_directory(pgdata, force=force, left=left, own=own) else []
    linked = _linked_folders(pgdata)
    may = force or (own is not None and bool(found))
    found += [move.new for move in moves if _check_tablespace(pgdata, move, linked, force=may, left=left)]
    return tuple(found)


def check_data_directory(folder: Path, *, force: bool, left: bool | None = None, own: int | None = None) -> bool:
    """Return whether a data directory must be emptied, or compared. Raises: RestoreError where it must not."""
    if not _holds_something(folder, "data directory"):
        return False
    if left if left is not None else left_by_restore(folder):
        return True
    is_cluster = any((folder / name).exists() for name in _OF_A_CLUSTER)
    if own is not None and is_cluster and _is_of_cluster(folder, own):
        return True
    if force and is_cluster:
        return True
    message = f"the data directory '{folder}' is not empty"
    if is_cluster:
        hint = "Restore into another folder, or remove the old cluster in this one with --force."
        if own is not None:
            message += ", and its pg_control cannot be read, so that nothing proves whose it is"
            hint = "Restore into another folder, or add --force: what is right in this one stays all the same."
    else:
        message += " and does not hold a PostgreSQL cluster" if force else ""
        hint = (
            f"It holds '{content_of(folder)[0]}', which is not of a cluster, and --force removes only what was one: "
            "restore into another folder, or remove these files yourself."
        )
    raise RestoreError(message, hint=hint)


def _is_of_cluster(folder: Path, system_identifier: int) -> bool:
    """Return whether a data directory is the cluster's; False where nothing tells.

    Raises: RestoreError where it is another's: what is surplus in it is not ours to remove.
    """
    try:
        found = read_control_file(folder).system_identifier
    except PostgresError:
        return False
    if found != system_identifier:
        raise RestoreError(
            f"the data directory '{folder}' is of the cluster with the system identifier {found}, "
            f"expected {system_identifier}",
            hint="--delta changes only a data directory of the cluster that is restored: restore into another folder; "
            "or leave out --delta, and --force removes the other cluster.",
        )
    return True


def _check_tablespace(pgdata: Path, move: TablespaceMove, linked: frozenset[Path], *, force: bool, left: bool) -> bool:
    """Return whether a tablespace's folder must be emptied. Its name comes from the store, or from a person.

    No postmaster.pid lies in a tablespace: only the links in the replaced data directory, whose server does not run,
    or the mark of a restore into that directory, tell that no running server uses it. And one holds nothing but
    folders such as ``PG_18_202506291`` (relpath.h: TABLESPACE_VERSION_DIRECTORY).
    """
    folder = move.new
    if not _holds_something(folder, "tablespace folder"):
        return False
    elsewhere = f"Give it a new folder: --tablespace-map {move.oid}=/new/folder"
    strange = [name for name in content_of(folder) if not _OF_A_TABLESPACE.match(name)]
    if strange:
        raise RestoreError(
            f"the tablespace folder '{folder}' holds '{strange[0]}', which is not of a tablespace", hint=elsewhere
        )
    is_linked = folder.resolve() in linked
    if is_left_for(folder, pgdata) or (is_linked and left):
        return True
    if not is_linked:
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
    """Return whether anything is in a folder; a file system's own lost+found and our work folder do not count.

    Raises: RestoreError for what is no folder, cannot be read, or is one of a running server.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise RestoreError(f"the {what} '{folder}' is not a folder")
    check_not_running(folder)
    try:
        return bool(content_of(folder))
    except OSError as error:
        raise RestoreError(f"the {what} '{folder}' cannot be read: {error.strerror}") from error


def check_not_running(pgdata: Path) -> None:
    """Refuse a folder in which a server runs, or may run. Raises: RestoreError."""
    try:
        found = find_server(pgdata)
    except PostgresError as error:
        raise RestoreError(error.message) from error
    if found is not None:
        raise RestoreError(found.message, hint=found.hint)
