"""Knows the files of the databases that a restore leaves out, and puts files without content in their place."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wal_pipeline.archive.format.database_folders import database_folder, database_of
from wal_pipeline.commands.restore.files.listed_files import BACKUP_MANIFEST, ManifestFile, manifest_file
from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL, safe_name
from wal_pipeline.errors import RestoreError

_VERSION_FILE: Final = "PG_VERSION"
_INCREMENTAL: Final = "INCREMENTAL."
# PostgreSQL reads the file when a session, or a worker such as autovacuum's, connects to the database
# (miscinit.c: ValidatePgVersion), and shows its first word, of at most 63 bytes, where that begins with another number
# than the server's version. No WAL ever rewrites it; a database that is created as a copy of the files gets it too.
LEFT_OUT_WORD: Final = "0:its-files-were-left-out-by-restore--only-database"


@dataclass(frozen=True, slots=True)
class LeftOutDatabases:
    """The databases whose files are neither fetched nor written, by oid with their names.

    ``volumes`` are the numbers of the volumes that hold nothing else, by base backup and tar.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    volumes: Mapping[tuple[str, str], frozenset[int]] = field(default_factory=dict)

    @property
    def skips_volumes(self) -> bool:
        """Whether any volume is not fetched."""
        return any(self.volumes.values())

    def has(self, name: str, tar: str) -> bool:
        """Return whether a member of a tar is a file or the folder of one of them."""
        return database_of(name, tar) in self.names

    def missed(self, invalid: Mapping[str, str]) -> tuple[str, ...]:
        """Return the server's words on pages that replay missed, by their folders, in anything but these databases."""
        return tuple(words for folder, words in invalid.items() if database_of(folder) not in self.names)

    def unneeded(self, backup_id: str, tar: str) -> frozenset[int]:
        """Return the numbers of a tar's volumes that hold nothing but their files."""
        return self.volumes.get((backup_id, tar), frozenset())


def read_manifest_files(path: Path) -> list[ManifestFile]:
    """Return the files that a ``backup_manifest`` names. Raises: RestoreError where it cannot be read as one."""
    try:
        return [manifest_file(one) for one in json.loads(path.read_bytes())["Files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RestoreError(f"PostgreSQL's manifest '{path}' cannot be read: {error}") from error


def require_complete(folder: Path, files: Sequence[ManifestFile], left_out: LeftOutDatabases) -> None:
    """Refuse a folder without a file that was not left out, or with one of another size. Raises: RestoreError."""
    for file in files:
        if database_of(file.name) in left_out.names:
            continue
        path = folder / (HELD_BACK if file.name == PG_CONTROL else safe_name(file.name))
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            found = None
        if found != file.size_bytes:
            raise RestoreError(
                f"file '{file.name}' has {'not come' if found is None else f'{found} bytes'}, expected "
                f"{file.size_bytes} bytes by PostgreSQL's manifest",
                hint="Restore without --only-database; and look with 'wal-pipeline verify' at the base backup.",
            )


def left_out_folders(files: Sequence[ManifestFile], left_out: LeftOutDatabases) -> tuple[str, ...]:
    """Return the folders of the databases that were left out, relative to the data directory."""
    found = (database_folder(file.name) for file in files)
    return tuple(dict.fromkeys(one[0] for one in found if one is not None and one[1] in left_out.names))


def stand_ins(chain: Sequence[Sequence[ManifestFile]], left_out: LeftOutDatabases) -> Iterator[ManifestFile]:
    """Yield the files that stand in for those left out, each once, of a chain's manifests, the full one first.

    The size of a file that the newest has as an incremental one is the size that an earlier one gives: the rest is
    extended by the replay.
    """
    sizes: dict[str, int] = {}
    for files in chain:
        sizes |= {file.name: file.size_bytes for file in files if database_of(file.name) in left_out.names}
    for file in chain[-1]:
        if database_of(file.name) not in left_out.names:
            continue
        folder, _, base = file.name.rpartition("/")
        if base.startswith(_INCREMENTAL):
            name = f"{folder}/{base.removeprefix(_INCREMENTAL)}"
            yield ManifestFile(name, sizes.get(name, 0))
        else:
            yield file


def write_stand_ins(pgdata: Path, files: Iterator[ManifestFile]) -> None:
    """Make a file without content for each that was left out, of its size, so that the replay of WAL finds it.

    The disk holds nothing for them. A database's ``PG_VERSION`` gets a word that lets nobody connect to it.

    Raises: RestoreError.
    """
    try:
        for file in files:
            path = pgdata / safe_name(file.name)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            try:
                if path.name == _VERSION_FILE:
                    os.write(descriptor, f"{LEFT_OUT_WORD}\n".encode("ascii"))
                else:
                    os.ftruncate(descriptor, file.size_bytes)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise RestoreError(f"'{error.filename or pgdata}' cannot be written: {error.strerror}") from error


def check_parts(folder: Path, left_out: LeftOutDatabases) -> tuple[str, ...]:
    """Check that one extracted base backup lacks nothing but what was left out; return the folders of that.

    Raises: RestoreError.
    """
    files = read_manifest_files(folder / BACKUP_MANIFEST)
    require_complete(folder, files, left_out)
    return left_out_folders(files, left_out)


def fill_left_out(pgdata: Path, folders: Sequence[Path], left_out: LeftOutDatabases) -> tuple[str, ...]:
    """Write the stand-ins into a data directory, made of the extracted base backups in ``folders``, the full one first.

    Returns the folders of the databases that were left out. Raises: RestoreError, also where a file did not come.
    """
    chain = [read_manifest_files(folder / BACKUP_MANIFEST) for folder in folders]
    if folders == [pgdata]:
        require_complete(pgdata, chain[-1], left_out)
    write_stand_ins(pgdata, stand_ins(chain, left_out))
    return left_out_folders(chain[-1], left_out)
