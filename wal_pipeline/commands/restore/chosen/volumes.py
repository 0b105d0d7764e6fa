"""Chooses the volumes of a base backup that hold nothing but the files of databases that are left out."""

from collections.abc import Set as AbstractSet

from wal_pipeline.archive.format.base_backup.file_index import FileIndex
from wal_pipeline.archive.format.base_backup.manifest import BackupTar, BaseBackupManifest
from wal_pipeline.archive.format.base_backup.tar_cuts import Cuts, TarCut, VolumeDatabases
from wal_pipeline.archive.format.database_folders import database_folder, database_of
from wal_pipeline.archive.records import BackupMethod


def volumes_left_out(
    tar: BackupTar, cuts: Cuts, databases: VolumeDatabases | None, left_out: AbstractSet[int]
) -> frozenset[int]:
    """Return the numbers of the tar's volumes that hold only files of the databases ``left_out``, by their oids.

    ``databases`` says what each volume holds. Without it, as in base backups of earlier versions, only a volume counts
    that begins and ends within members of one database's folder: PostgreSQL sends a folder with all that is in it
    before it goes on to the next (basebackup.c: sendDir), so that nothing else lies between the two.
    """
    if databases is not None:
        return frozenset(number for number, oids in enumerate(databases) if oids and oids <= left_out)
    begins = (None, *cuts)
    return frozenset(
        number
        for number in range(1, len(tar.objects) - 1)
        if (folder := _folder(begins[number], tar.name)) is not None
        and folder == _folder(begins[number + 1], tar.name)
        and folder[1] in left_out
    )


def volumes_of_databases(index: FileIndex, left_out: AbstractSet[int]) -> frozenset[int]:
    """Return the numbers of the volumes that hold nothing of a base backup but files of the databases ``left_out``."""
    return frozenset(
        number
        for number, parts in index.by_volume().items()
        if all(database_of(file.path) in left_out for file, _ in parts)
    )


def fetched_bytes(manifest: BaseBackupManifest) -> int:
    """Return the bytes that a restore fetches of a base backup, after its plan.

    Of one of the method ``local`` these are its volumes, also those of earlier base backups; its index is read for the
    plan, and PostgreSQL's list is in the last volume.
    """
    if manifest.method is BackupMethod.LOCAL:
        return sum(volume.item.size_bytes for volume in manifest.volumes)
    return manifest.stored_size_bytes


def _folder(cut: TarCut | None, tar: str) -> tuple[str, int] | None:
    return None if cut is None else database_folder(cut.name, tar)
