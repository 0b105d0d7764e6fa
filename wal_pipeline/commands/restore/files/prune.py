"""Removes from a folder of this cluster what a base backup does not have, and keeps the rest to be compared."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from wal_pipeline.commands.restore.files.on_disk import TABLESPACES, FilePlaces
from wal_pipeline.commands.restore.places.wal_folder import PG_WAL
from wal_pipeline.commands.restore.places.workspace import NOT_CONTENT, empty
from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL
from wal_pipeline.errors import RestoreError
from wal_pipeline.host.mounts import LOST_AND_FOUND


def prune(places: FilePlaces, files: Iterable[str], folders: Iterable[str] = ()) -> None:
    """Remove everything but the named files and folders, whose names are relative to the data directory.

    Links are removed and never followed, but that of ``pg_wal``, which the restore itself has made. So is a file that
    has a second name: its content is also another folder's, which is not ours to change. A file system that is mounted
    in the folder stays mounted. Neither our marks nor a ``lost+found`` at the top are touched.

    Raises: RestoreError.
    """
    names = {HELD_BACK if name == PG_CONTROL else name for name in files}
    kept = _with_parents([*names, *(f"{name}/" for name in folders)])
    kept -= {f"{TABLESPACES}/{oid}" for oid in places.spaces}  # a folder in a link's place
    try:
        for prefix, folder in places.roots:
            if folder.is_dir():
                _Pruning(names, kept).run(prefix, str(folder))
    except OSError as error:
        raise RestoreError(f"'{error.filename}' cannot be removed: {error.strerror}") from error


class _Pruning:
    def __init__(self, names: set[str], folders: set[str]) -> None:
        self._names = names
        self._folders = folders

    def run(self, prefix: str, folder: str, *, top: bool = True) -> None:
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            if (top and entry.name in NOT_CONTENT) or (entry.name == LOST_AND_FOUND and os.path.ismount(folder)):
                continue
            name = prefix + entry.name
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                if name in self._folders:
                    self.run(f"{name}/", entry.path, top=False)
                else:
                    _remove_folder(Path(entry.path))
            elif name == PG_WAL and stat.S_ISLNK(status.st_mode):
                continue  # ours: the old one went before
            elif name not in self._names or not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                Path(entry.path).unlink()


def _remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; a mounted file system is emptied, and keeps its own lost+found."""
    mounted = os.path.ismount(folder)
    empty(folder, keep=(LOST_AND_FOUND,) if mounted else ())
    if not mounted:
        folder.rmdir()


def _with_parents(names: Iterable[str]) -> set[str]:
    return {parent for name in names for parent in parents_of(name)}


def parents_of(name: str) -> Iterator[str]:
    """Yield the folders that a file lies in. A folder's own name ends with a slash."""
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)
