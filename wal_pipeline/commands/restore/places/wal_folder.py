"""Puts ``pg_wal`` on a disk of its own: where the request says so, or where the replaced cluster had it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.commands.restore.places.workspace import NOT_CONTENT, is_left_for
from wal_pipeline.errors import RestoreError

PG_WAL: Final = "pg_wal"
_HINT: Final = "Name another folder for the WAL with --waldir."
_OF_PG_WAL: Final = re.compile(
    r"[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?\Z|[0-9A-F]{8}\.history\Z|archive_status\Z|summaries\Z"
    r"|xlogtemp\.|RECOVERYXLOG\Z|RECOVERYHISTORY\Z|\.wal-pipeline-"
)


@dataclass(frozen=True, slots=True)
class WalFolder:
    """The folder that ``pg_wal`` will link to. ``emptied``: old content is removed; ``kept``: it was the old link."""

    folder: Path
    emptied: bool
    kept: bool


def plan_wal_folder(pgdata: Path, given: Path | None, *, replaced: bool) -> WalFolder | None:
    """Return where the WAL goes; None where ``pg_wal`` is a folder of the data directory.

    ``replaced``: the data directory holds what is removed. Its own link is kept, and what the link points to is
    emptied with the rest of the old cluster. A folder that is ``given`` must be empty, or that one.

    Raises: RestoreError where the folder holds what is not of a ``pg_wal``, is missing behind a link, or is in PGDATA.
    """
    old = _old_link(pgdata) if replaced else None
    if given is None:
        return None if old is None else _kept(old, pgdata)
    folder = given.absolute()
    if os.path.ismount(pgdata / PG_WAL):
        raise RestoreError(
            f"'{pgdata / PG_WAL}' is a mount point, so that no link can take its place",
            hint="Restore without --waldir: the WAL goes onto the disk that is mounted there. Or unmount it.",
        )
    if folder == pgdata or pgdata in folder.parents or folder in pgdata.parents:
        raise RestoreError(f"the folder for the WAL '{folder}' and the data directory '{pgdata}' overlap", hint=_HINT)
    if old is not None and folder.resolve() == old.resolve():
        return _kept(folder, pgdata)
    if folder.exists() and not folder.is_dir():
        raise RestoreError(f"'{folder}' is not a folder", hint=_HINT)
    holds = _content(folder)
    if holds and not is_left_for(folder, pgdata):
        raise RestoreError(f"the folder for the WAL '{folder}' is not empty: it holds '{holds[0]}'", hint=_HINT)
    return WalFolder(folder, emptied=bool(holds), kept=False)


def content_of(pgdata: Path) -> list[str]:
    """Return the names of what is in a data directory. A ``pg_wal`` that is an empty disk does not count.

    Raises: OSError.
    """
    names = sorted(path.name for path in pgdata.iterdir() if path.name not in NOT_CONTENT)
    return [name for name in names if name != PG_WAL or not _is_empty_disk(pgdata / name)]


def wal_place(pgdata: Path, planned: WalFolder | None) -> Path:
    """Return the folder whose disk the WAL will fill."""
    if planned is not None:
        return planned.folder
    return pgdata / PG_WAL if os.path.ismount(pgdata / PG_WAL) else pgdata


def _is_empty_disk(folder: Path) -> bool:
    return os.path.ismount(folder) and not _content(folder)


def other_links(pgdata: Path) -> dict[str, str]:
    """Return the links directly in a data directory but ``pg_wal``: a restore puts no link in their places."""
    if not pgdata.is_dir():
        return {}
    links = (path for path in sorted(pgdata.iterdir()) if path.is_symlink() and path.name != PG_WAL)
    return {path.name: str(path.readlink()) for path in links}


def _old_link(pgdata: Path) -> Path | None:
    link = pgdata / PG_WAL
    return pgdata / link.readlink() if link.is_symlink() else None


def _kept(folder: Path, pgdata: Path) -> WalFolder:
    if not folder.is_dir():
        raise RestoreError(
            f"'{pgdata / PG_WAL}' is a link to '{folder}', where no folder is",
            hint="Mount the disk that belongs there, name another folder with --waldir, or remove the link.",
        )
    holds = _content(folder)
    strange = [name for name in holds if not _OF_PG_WAL.match(name)]
    if strange:
        raise RestoreError(
            f"'{pgdata / PG_WAL}' is a link to '{folder}', which holds '{strange[0]}', expected only WAL",
            hint=f"{_HINT} Nothing in '{folder}' is removed then.",
        )
    return WalFolder(folder, emptied=bool(holds), kept=True)


def _content(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name not in NOT_CONTENT)
