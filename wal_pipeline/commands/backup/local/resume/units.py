"""Decides what is compared with base backups that were cut: bundles of small files, and the parts of large ones."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.commands.backup.local.resume.find import UnfinishedBackup
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.wal.lsn import Lsn


@dataclass(frozen=True, slots=True)
class BundleUnit:
    """Files of one volume of a base backup that was cut, which may be unchanged by their sizes and times.

    ``item`` is the volume of the base backup ``backup_id``, ``known`` are the files as it holds them, in their order.
    """

    backup_id: str
    item: BackupObject
    files: tuple[DataFile, ...]
    known: tuple[IndexedFile, ...]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of a large file, alone in a volume of the base backup ``backup_id``, which began at ``start_lsn``.

    The file had this size and time when it was read.
    """

    backup_id: str
    start_lsn: Lsn
    item: BackupObject
    part: FilePart
    size_bytes: int
    modified_ns: int

    def is_of(self, size_bytes: int, modified_ns: int) -> bool:
        """Whether the file still has the size and the time that it had then."""
        return (size_bytes, modified_ns) == (self.size_bytes, self.modified_ns)


@dataclass(frozen=True, slots=True)
class LargeUnit:
    """A file of which parts were stored; those in ``parts`` come in the order of their places."""

    file: DataFile
    parts: tuple[StoredPart, ...]

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The file, as a bundle has its files."""
        return (self.file,)


Unit = BundleUnit | LargeUnit


def resume_units(unfinished: Sequence[UnfinishedBackup], files: Iterable[DataFile]) -> list[list[Unit]]:
    """Return what may be unchanged since the base backups that were cut, of which the newest comes first.

    The lists are for the volumes of the oldest one first: what is in a later list must get later volumes, because older
    ones may hold earlier states of the same files.

    Only relations' files: one that ends with its own CRC, such as pg_filenode.map, has the same CRC in any state.
    """
    bundles: list[dict[int, list[DataFile]]] = [defaultdict(list) for _ in unfinished]
    large: list[Unit] = []
    for file in files:
        known_by = next(
            (n for n, one in enumerate(unfinished) if file.path in one.files or file.path in one.large), None
        )
        if known_by is None or not file.relation:
            continue
        known = unfinished[known_by].files.get(file.path)
        if known is None:
            large.append(LargeUnit(file, _parts(file.path, unfinished)))
        elif (file.size_bytes, file.modified_ns) == (known.size_bytes, known.modified_ns):
            bundles[known_by][known.parts[0].volume].append(file)
    steps: list[list[Unit]] = [
        [_bundle(one, volume, group) for volume, group in found.items()]
        for one, found in zip(unfinished, bundles, strict=True)
    ]
    steps.reverse()
    if large:
        steps[-1] = [*large, *steps[-1]]
    return [step for step in steps if step]


def _bundle(one: UnfinishedBackup, volume: int, files: Sequence[DataFile]) -> BundleUnit:
    known = tuple(one.files[file.path] for file in files)
    return BundleUnit(one.backup_id, one.volumes[volume], tuple(files), known)


def _parts(path: str, unfinished: Sequence[UnfinishedBackup]) -> tuple[StoredPart, ...]:
    """Return the parts of a large file that were stored; of two at the same place the newer one."""
    found: dict[int, StoredPart] = {}
    for one in unfinished:
        known = one.large.get(path)
        if known is None:
            continue
        for part in known.parts:
            item = one.volumes[part.volume]
            stored = StoredPart(one.backup_id, one.start_lsn, item, part, known.size_bytes, known.modified_ns)
            found.setdefault(part.offset_bytes, stored)
    return tuple(found[place] for place in sorted(found))
