"""Finds out what need not be fetched of a base backup that is one long tar, where most files are already right."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from wal_pipeline.archive.format.base_backup.manifest import BASE_TAR, BackupTar, BaseBackupManifest
from wal_pipeline.archive.format.base_backup.tar_cuts import Cuts
from wal_pipeline.archive.format.database_folders import database_of
from wal_pipeline.commands.restore.files.checksums import CRC32C
from wal_pipeline.commands.restore.files.compare import right_of_manifest
from wal_pipeline.commands.restore.files.listed_files import ManifestFile
from wal_pipeline.commands.restore.files.on_disk import TABLESPACES, FilePlaces
from wal_pipeline.commands.restore.files.prune import prune
from wal_pipeline.commands.restore.files.trusted import is_relation_file
from wal_pipeline.errors import RestoreError


class UnwantedFiles(Protocol):
    """Knows what is neither fetched nor written of a base backup's tars."""

    def has(self, name: str, tar: str) -> bool:
        """Return whether a member of a tar is not written."""

    def unneeded(self, backup_id: str, tar: str) -> frozenset[int]:
        """Return the numbers of a tar's volumes that hold nothing but such members."""


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """The files that are already right, by their names with their checksums; and what was left out in any case."""

    right: Mapping[str, bytes]
    left_out: UnwantedFiles
    volumes: Mapping[tuple[str, str], frozenset[int]] = field(default_factory=dict)

    def has(self, name: str, tar: str) -> bool:
        """Return whether a member of a tar is not written."""
        return self.left_out.has(name, tar) or name_in_cluster(name, tar) in self.right

    def unneeded(self, backup_id: str, tar: str) -> frozenset[int]:
        """Return the numbers of a tar's volumes that hold nothing but such members."""
        return self.left_out.unneeded(backup_id, tar) | self.volumes.get((backup_id, tar), frozenset())

    def fetched_bytes(self, manifest: BaseBackupManifest) -> int:
        """Return the bytes of the volumes that are fetched all the same."""
        return sum(
            item.size_bytes
            for tar in manifest.tars
            for number, item in enumerate(tar.objects)
            if number not in self.unneeded(manifest.backup_id, tar.name)
        )


def name_in_cluster(name: str, tar: str) -> str:
    """Return a member's name relative to the data directory, as PostgreSQL's manifest has it."""
    name = name.removeprefix("./")
    return name if tar == BASE_TAR else f"{TABLESPACES}/{tar}/{name}"


def keep_right_files(
    files: Mapping[str, ManifestFile], places: FilePlaces, left_out: Collection[int], *, workers: int
) -> dict[str, bytes]:
    """Remove everything that is not one of these files with its very content; return the checksums of the rest.

    ``left_out`` are the oids of databases that do not come back: their files go too. So do those whose checksum proves
    nothing. Raises: RestoreError.
    """
    wanted = {
        name: file
        for name, file in files.items()
        if database_of(name) not in left_out and (is_relation_file(name) or file.algorithm not in {None, CRC32C})
    }
    prune(places, wanted)
    right = right_of_manifest(wanted, places, workers=workers)
    try:
        for name in wanted.keys() - right.keys():
            with suppress(FileNotFoundError, NotADirectoryError):
                Path(places.path(name)).unlink()
    except OSError as error:
        raise RestoreError(f"'{error.filename}' cannot be removed: {error.strerror}") from error
    return right


def volumes_of_right_files(tar: BackupTar, cuts: Cuts, right: Collection[str]) -> frozenset[int]:
    """Return the numbers of a tar's volumes that hold nothing but files that are right.

    That is known only of a volume that lies within one file. The last one is always needed: it ends the tar.
    """
    begins = (None, *cuts)
    found = set()
    for number in range(len(tar.objects) - 1):
        begin, end = begins[number], begins[number + 1]
        if begin is not None and end is not None and begin.name == end.name:
            found |= {number} if name_in_cluster(begin.name, tar.name) in right else set()
    return frozenset(found)
