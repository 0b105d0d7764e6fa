"""Goes on with a base backup that was cut: what it stored and what is unchanged since is copied on each store.

While a base backup runs it stores small parts of its index (archive/format/base_backup/unfinished.py). The next one
finds those of a base backup without a manifest and reads each file that they name. Where the content is still the same
each store copies the volume, so that it is neither compressed nor sent again.
"""

import io
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.manifest import BackupObject, is_backup_id
from wal_pipeline.archive.format.base_backup.unfinished import (
    UnfinishedIndex,
    index_part_lines,
    index_part_name,
    is_index_part,
    parse_index_part,
)
from wal_pipeline.codec.stream_decoder import StoredStream, StreamOpener, open_stream
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.packed import PackedVolumes
from wal_pipeline.commands.backup.local.source_file import OnRead, unchanged_pages
from wal_pipeline.commands.backup.local.stored_objects import StoredObjects
from wal_pipeline.commands.backup.local.volume_packer import VolumePacker
from wal_pipeline.commands.backup.objects import object_metadata
from wal_pipeline.commands.inventory.leases import find_leases, is_over, needed_backups
from wal_pipeline.errors import BaseBackupError, CodecError, StoreError
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.postgres.online_backup import StartedBackup
from wal_pipeline.stores.base import Body, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn

_log = logging.getLogger(__name__)
_VOLUMES_A_PART: Final = 4
_PARTS: Final = 20  # about as many as a large base backup has: a cut loses a twentieth at most
_SIZE_NAME: Final = "content-size-bytes"
_LARGEST_PART_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class ResumeUnit:
    """Files that were stored, and the volumes in which they lie: copied together or not at all."""

    volumes: tuple[int, ...]
    files: tuple[DataFile, ...]


@dataclass(frozen=True, slots=True)
class UnfinishedBackup:
    """A base backup that was cut: its volumes that all stores have, and the files whose parts lie in those."""

    backup_id: str
    index: UnfinishedIndex

    def is_unchanged(self, file: DataFile, started: StartedBackup, on_read: OnRead) -> bool:
        """Read a file and say whether its content is what was stored. Raises: BaseBackupError."""
        return unchanged_pages(file, self.index.files[file.path], started, on_read) is not None

    def units(self, files: Iterable[DataFile]) -> list[ResumeUnit]:
        """Return what may be unchanged by size and time: a bundle, or a large file with all its volumes.

        Only relations' files: one that ends with its own CRC, such as pg_filenode.map, has the same CRC in any state.
        """
        found: dict[tuple[int, ...], list[DataFile]] = defaultdict(list)
        for file in files:
            known = self.index.files.get(file.path) if file.relation else None
            if known is not None and (file.size_bytes, file.modified_ns) == (known.size_bytes, known.modified_ns):
                found[tuple(part.volume for part in known.parts)].append(file)
        return [ResumeUnit(volumes, tuple(group)) for volumes, group in found.items()]

    def is_worth(self, unit: ResumeUnit, unchanged: Sequence[DataFile]) -> bool:
        """Whether at least half of what the volumes hold is still right."""
        held = sum(self.index.volumes[number].content_size_bytes for number in unit.volumes)
        return 2 * sum(file.size_bytes for file in unchanged) >= held


@dataclass(frozen=True, slots=True)
class VolumeCopier:
    """Copies the volumes of a base backup that was cut into a new one; serves several workers at once."""

    unfinished: UnfinishedBackup
    objects: StoredObjects
    packer: VolumePacker

    def take(self, unit: ResumeUnit) -> None:
        """Copy the unit's volumes where they are still right, and store what is not. Raises: as the packer."""
        packer, unfinished = self.packer, self.unfinished
        right = [file for file in unit.files if unfinished.is_unchanged(file, packer.started, packer.on_read)]
        if not unfinished.is_worth(unit, right) or not self._copy(unit, right):
            right = []
        taken = {file.path for file in right}
        packer.pack(tuple(file for file in unit.files if file.path not in taken))

    def _copy(self, unit: ResumeUnit, right: Sequence[DataFile]) -> bool:
        items = {number: self.unfinished.index.volumes[number] for number in unit.volumes}
        if not all(self.objects.proves(self.unfinished.backup_id, item) for item in items.values()):
            return False
        packed, numbers = self.packer.packed, {}
        for number, item in items.items():
            numbers[number] = packed.begin()
            copied = self.objects.copy(self.unfinished.backup_id, item, self.packer.volume_name(numbers[number]))
            packed.add_volume(numbers[number], self.packer.backup_id, copied)
        for file in right:
            known = self.unfinished.index.files[file.path]
            parts = tuple(replace(part, volume=numbers[part.volume]) for part in known.parts)
            packed.add_file(replace(known, parts=parts))
        return True


class IndexParts:
    """Stores the parts of the index while a base backup runs, and removes them before its manifest is stored."""

    def __init__(self, backup_id: str, start_lsn: Lsn, places: Sequence[ClusterStore], encoder: StreamEncoder) -> None:
        self._backup_id = backup_id
        self._start_lsn = start_lsn
        self._places = list(places)
        self._encoder = encoder
        self._count = 0

    def store_news(self, packed: PackedVolumes) -> None:
        """Store a part where enough volumes were added. A store that does not take it is no reason to stop."""
        news = packed.take_news(max(_VOLUMES_A_PART, packed.begun // _PARTS))
        if news is None:
            return
        content = b"".join(index_part_lines(self._start_lsn, news.volumes, news.files.values()))
        stored = bytearray()
        self._encoder.encode_here([content], stored.extend)
        metadata = {**object_metadata(self._backup_id), _SIZE_NAME: str(len(content))}
        body, key_name = Body.of(bytes(stored)), self._name(self._count)
        self._count += 1
        for place in self._places:
            try:
                place.store.put_if_absent(place.layout.base_key(self._backup_id, key_name), body, metadata)
            except StoreError as error:
                _log.warning("a base backup that is cut cannot go on with all of this one: %s", error.message)

    def remove(self) -> None:
        """Remove all parts; those that stay do no harm."""
        for place in self._places:
            try:
                for number in range(self._count):
                    place.store.delete(place.layout.base_key(self._backup_id, self._name(number)))
            except StoreError as error:
                _log.warning("parts of the index of base backup '%s' stay: %s", self._backup_id, error.message)

    @property
    def is_begun(self) -> bool:
        """Whether a later base backup could go on with this one."""
        return self._count > 0

    def _name(self, number: int) -> str:
        return index_part_name(number, self._encoder.codec, encrypted=self._encoder.encrypted)


def find_unfinished(
    places: Sequence[ClusterStore], encoder: StreamEncoder, identities: Sequence[Any]
) -> UnfinishedBackup | None:
    """Return the newest base backup that was cut and can be gone on with; None where there is none.

    A volume counts where every store has it with its size. What cannot be read is not gone on with.
    """
    try:
        held = [_unfinished_objects(place) for place in places]
        common = set.intersection(*(set(one) for one in held)) if held else set[str]()
        for backup_id in sorted(common, reverse=True):
            found = _read(places[0], backup_id, [one[backup_id] for one in held], encoder, identities)
            if found is not None:
                return found
    except (StoreError, BaseBackupError, CodecError) as error:
        _log.warning("no earlier base backup is gone on with: %s", error.message)
    return None


def _unfinished_objects(place: ClusterStore) -> dict[str, dict[str, StoredObject]]:
    """Return the objects of base backups that nobody stores now and that have no manifest, by id and name."""
    found: dict[str, dict[str, StoredObject]] = defaultdict(dict)
    for item in place.store.list(place.layout.base_root):
        backup_id = place.layout.backup_id_of(item.key)
        if backup_id is not None and is_backup_id(backup_id):
            found[backup_id][item.key.rpartition("/")[2]] = item
    leases = [one for one in find_leases(place) if not is_over(one)]
    if any(one.lease is None for one in leases):
        return {}
    busy = needed_backups(leases)
    return {
        backup_id: objects
        for backup_id, objects in found.items()
        if backup_id not in busy
        and place.layout.manifest_key(backup_id).rpartition("/")[2] not in objects
        and any(map(is_index_part, objects))
    }


def _read(
    place: ClusterStore,
    backup_id: str,
    held: Sequence[dict[str, StoredObject]],
    encoder: StreamEncoder,
    identities: Sequence[Any],
) -> UnfinishedBackup | None:
    index: UnfinishedIndex | None = None
    for number in range(len(held[0])):
        name = index_part_name(number, encoder.codec, encrypted=encoder.encrypted)
        if name not in held[0]:
            break
        part = parse_index_part(_opened(place, backup_id, name, encoder, identities).splitlines())
        if index is None:
            index = part
        else:
            index.add(part)
    if index is None:
        return None
    there = {number: item for number, item in index.volumes.items() if _all_have(held, item)}
    files = {path: file for path, file in index.files.items() if all(part.volume in there for part in file.parts)}
    return UnfinishedBackup(backup_id, replace(index, volumes=there, files=files)) if files else None


def _all_have(held: Sequence[dict[str, StoredObject]], item: BackupObject) -> bool:
    return all(item.name in objects and objects[item.name].size_bytes == item.size_bytes for objects in held)


def _opened(place: ClusterStore, backup_id: str, name: str, encoder: StreamEncoder, identities: Sequence[Any]) -> bytes:
    content = io.BytesIO()
    with place.store.open_described(place.layout.base_key(backup_id, name)) as (described, stream):
        size_bytes = int(described.metadata.get(_SIZE_NAME, "0"))
        if size_bytes > _LARGEST_PART_BYTES:
            raise BaseBackupError(f"'{name}' opens to {size_bytes} bytes, expected at most {_LARGEST_PART_BYTES}")
        item = BackupObject(name, described.size_bytes, "", size_bytes)
        opener = StreamOpener(encoder.codec, item, content.write)
        open_stream(StoredStream(stream), opener, encoder.encrypted, identities)
    return content.getvalue()
