"""Compares a restored data directory with PostgreSQL's own manifest, many files at a time."""

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

from wal_pipeline.commands.restore.files.checksums import checksum_of_file
from wal_pipeline.commands.restore.files.listed_files import (
    BACKUP_MANIFEST,
    FilesOfManifest,
    ManifestFile,
    read_backup_manifest,
)
from wal_pipeline.commands.restore.files.workers import Workers
from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.control_file import read_control_file

# pg_verifybackup.c: what PostgreSQL's manifest never names, and a person or a server may have made.
_NEVER_NAMED: Final = (BACKUP_MANIFEST, "pg_wal", "postgresql.auto.conf", "recovery.signal", "standby.signal")
_TABLESPACES: Final = "pg_tblspc"
_SHOWN: Final = 20
_GROUP_BYTES: Final = 8 << 20
_GROUP_FILES: Final = 64


class VerifyWith(StrEnum):
    """Who compares the restored files with PostgreSQL's manifest: this program, or ``pg_verifybackup``."""

    OWN = "own"
    POSTGRES = "postgres"


def compare_with_manifest(
    pgdata: Path, *, workers: int, ignored: Sequence[str] = (), proven: Mapping[str, bytes] | None = None
) -> None:
    """Compare every file below ``pgdata`` with its ``backup_manifest``, as pg_verifybackup does without WAL.

    What is below the paths ``ignored``, relative to the data directory, is passed over. Files in ``proven`` were
    read since they were written, and have these checksums: where that is the right one, they are not read again.

    ``global/pg_control`` may be held back.

    Raises: RestoreError where a file is missing, is too many, or differs; it names up to twenty of them.
    """
    listed = read_backup_manifest(pgdata / BACKUP_MANIFEST)
    comparison = _Comparison(pgdata, listed.files, frozenset((*_NEVER_NAMED, *ignored)), proven or {})
    faults = [*_wrong_cluster(pgdata, listed), *comparison.run(workers)]
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise RestoreError(f"'{pgdata}' is not what was backed up:\n" + "\n".join([*faults[:_SHOWN], *more]))


def _wrong_cluster(pgdata: Path, listed: FilesOfManifest) -> Iterator[str]:
    """Yield what is wrong where the manifest names another cluster than the control file does."""
    if listed.system_identifier is None:
        return
    try:
        held_back = pgdata / HELD_BACK
        found = read_control_file(pgdata, held_back if held_back.exists() else None).system_identifier
    except PostgresError as error:
        yield error.message
        return
    if found != listed.system_identifier:
        yield f"the system identifier is {found}, expected {listed.system_identifier} by PostgreSQL's manifest"


class _Comparison:
    """One data directory on its way through the workers."""

    def __init__(
        self, pgdata: Path, listed: Mapping[str, ManifestFile], ignored: frozenset[str], proven: Mapping[str, bytes]
    ) -> None:
        self._root = str(pgdata)
        self._listed = listed
        self._ignored = ignored
        self._proven = proven
        self._faults: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def run(self, workers: int) -> list[str]:
        """Return what is wrong, in the order of the files' names."""
        found = self._look()
        for name in self._listed.keys() - found.keys():
            if not self._is_ignored(name):
                self._say(name, f"'{name}' is in PostgreSQL's manifest and not on the disk")
        for name in found.keys() - self._listed.keys():
            self._say(name, f"'{name}' is on the disk and not in PostgreSQL's manifest")
        team = Workers[list[str]](workers, "verify")

        def compare(group: list[str]) -> None:
            for name in group:
                self._compare(self._listed[name], found[name], team.go_on)

        team.run(compare, _groups({name: found[name] for name in found.keys() & self._listed.keys()}))
        return [text for _, text in sorted(self._faults)]

    def _look(self) -> dict[str, int]:
        """Return the sizes of the files below the data directory by their names, and say what is no file.

        Only tablespaces are looked for behind links.
        """
        found: dict[str, int] = {}
        folders = [""]
        while folders:
            folder = folders.pop()
            prefix = f"{folder}/" if folder else ""
            with _scanned(f"{self._root}/{folder}") as entries:
                for entry in entries:
                    name = PG_CONTROL if prefix + entry.name == HELD_BACK else prefix + entry.name
                    if name in self._ignored:  # and with it all that lies in it
                        continue
                    status = _status(entry, follow=folder == _TABLESPACES)
                    if stat.S_ISREG(status.st_mode):
                        found[name] = status.st_size
                    elif stat.S_ISDIR(status.st_mode):
                        folders.append(name)
                    else:
                        self._say(name, f"'{name}' is neither a file nor a folder")
        return found

    def _is_ignored(self, name: str) -> bool:
        """Say whether a name, or a folder that it lies in, is passed over."""
        if name in self._ignored:
            return True
        return any(name[:at] in self._ignored for at, letter in enumerate(name) if letter == "/")

    def _compare(self, file: ManifestFile, size_bytes: int, go_on: Callable[[], None]) -> None:
        if size_bytes != file.size_bytes:
            self._say(file.name, f"'{file.name}' has {size_bytes} bytes, expected {file.size_bytes}")
            return
        if file.algorithm is None or file.checksum is None or self._proven.get(file.name) == file.checksum:
            return
        try:
            found = checksum_of_file(self._path(file.name), file.algorithm, go_on)
        except OSError as error:
            self._say(file.name, f"'{file.name}' cannot be read: {error.strerror}")
            return
        if found != file.checksum:
            self._say(
                file.name, f"'{file.name}' has the {file.algorithm} {found.hex()}, expected {file.checksum.hex()}"
            )

    def _path(self, name: str) -> str:
        path = f"{self._root}/{name}"
        return path if name != PG_CONTROL or Path(path).exists() else f"{self._root}/{HELD_BACK}"

    def _say(self, name: str, text: str) -> None:
        with self._lock:
            self._faults.append((name, text))


@contextmanager
def _scanned(folder: str) -> Iterator[Iterator["os.DirEntry[str]"]]:
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise RestoreError(f"'{error.filename}' cannot be read: {error.strerror}") from error


def _status(entry: "os.DirEntry[str]", *, follow: bool) -> os.stat_result:
    try:
        return entry.stat(follow_symlinks=follow)
    except FileNotFoundError:  # a link to a tablespace's folder that is not there
        return entry.stat(follow_symlinks=False)


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield the files in groups, the largest first, so that no worker ends long after the others."""
    group: list[str] = []
    group_bytes = 0
    for name in sorted(sizes, key=lambda one: sizes[one], reverse=True):
        group.append(name)
        group_bytes += sizes[name]
        if group_bytes >= _GROUP_BYTES or len(group) >= _GROUP_FILES:
            yield group
            group, group_bytes = [], 0
    if group:
        yield group
