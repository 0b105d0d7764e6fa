"""Copies the volumes of base backups that were cut into a new one on each store, where their content is unchanged.

Each file is read and compared, so that what is unchanged is neither compressed nor sent again.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.commands.backup.local.resume.units import BundleUnit, LargeUnit, StoredPart, Unit
from wal_pipeline.commands.backup.local.source_file import SourceFile, unchanged_pages
from wal_pipeline.commands.backup.local.volume_packer import VolumePacker
from wal_pipeline.postgres.relation_file import parse_relation_file


class ObjectCopies(Protocol):
    """Copies objects of other base backups on each store, as ``StoredObjects`` does."""

    def proves(self, source_id: str, item: BackupObject) -> bool:
        """Whether every store proves to have this object of another base backup."""

    def copy(self, source_id: str, item: BackupObject, name: str) -> BackupObject:
        """Let every store copy an object of another base backup, and return the copy."""


@dataclass(frozen=True, slots=True)
class VolumeCopier:
    """Copies what is unchanged and packs the rest of each unit; serves several workers at once."""

    objects: ObjectCopies
    packer: VolumePacker

    def take(self, unit: Unit) -> None:
        """Copy the unit's volumes where they are still right, and store what is not. Raises: as the packer."""
        if isinstance(unit, LargeUnit):
            self.packer.pack_parts(unit.file, _CopiedParts(self, unit))
        else:
            self._take_bundle(unit)

    def copy(self, backup_id: str, item: BackupObject) -> int:
        """Let each store copy a volume that it was proven to have, and return the copy's number."""
        packed, number = self.packer.packed, self.packer.packed.begin()
        copied = self.objects.copy(backup_id, item, self.packer.volume_name(number))
        packed.add_volume(number, self.packer.backup_id, copied)
        return number

    def _take_bundle(self, unit: BundleUnit) -> None:
        started, on_read = self.packer.started, self.packer.on_read
        right = [
            known
            for file, known in zip(unit.files, unit.known, strict=True)
            if unchanged_pages(file, known, started, on_read) is not None
        ]
        if not self._copied(unit, right):
            right = []
        taken = {known.path for known in right}
        self.packer.pack(tuple(file for file in unit.files if file.path not in taken))

    def _copied(self, unit: BundleUnit, right: Sequence[IndexedFile]) -> bool:
        """Copy a bundle's volume where at least half of what it holds is still right, and each store has it."""
        is_worth = 2 * sum(known.size_bytes for known in right) >= unit.item.content_size_bytes
        if not is_worth or not self.objects.proves(unit.backup_id, unit.item):
            return False
        number = self.copy(unit.backup_id, unit.item)
        for known in right:
            parts = tuple(replace(part, volume=number) for part in known.parts)
            self.packer.packed.add_file(replace(known, parts=parts))
        return True


class _CopiedParts:
    """The parts of one large file, compared and copied one after the other while the file is read.

    A part is right where its checksum and its pages are. Where the file has changed since, no page in it may be newer
    than the base backup that read it then: each change to a page of the main fork sets its LSN.
    """

    def __init__(self, copier: VolumeCopier, unit: LargeUnit) -> None:
        block_size = copier.packer.started.block_size
        relation = parse_relation_file(unit.file.path.rpartition("/")[2])
        self._copier = copier
        self._pages_tell = relation is not None and relation.fork == "main"
        self._parts = {
            one.part.offset_bytes: one
            for one in unit.parts
            if one.part.size_bytes and not one.part.size_bytes % block_size and not one.part.offset_bytes % block_size
        }
        self._places = sorted(self._parts)

    def copied(self, source: SourceFile, offset_bytes: int) -> FilePart | None:
        """Take the part that begins there into this base backup, where it is still right; None where none is."""
        stored = self._parts.get(offset_bytes)
        if stored is None or stored.part.size_bytes == source.size_bytes:  # a whole file has another name in its tar
            return None
        is_same_state = stored.is_of(source.size_bytes, source.modified_ns)
        if not is_same_state and not self._pages_tell:
            return None
        newest = None if is_same_state else stored.start_lsn
        if not source.takes_stored(stored.part, newest, lambda: self._is_on_all_stores(stored)):
            return None
        return replace(stored.part, volume=self._copier.copy(stored.backup_id, stored.item))

    def next_offset(self, offset_bytes: int) -> int | None:
        """Return where the first part behind this place begins."""
        at = bisect_right(self._places, offset_bytes)
        return self._places[at] if at < len(self._places) else None

    def _is_on_all_stores(self, stored: StoredPart) -> bool:
        return self._copier.objects.proves(stored.backup_id, stored.item)
