"""Finds base backups that were cut, and reads what they have stored: the parts of their indexes say it."""

import io
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupObject, is_backup_id
from wal_pipeline.archive.format.base_backup.unfinished import (
    BegunFile,
    UnfinishedIndex,
    index_part_name,
    is_index_part,
    parse_index_part,
)
from wal_pipeline.codec.stream_decoder import StoredStream, StreamOpener, open_stream
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.resume.index_parts import CONTENT_SIZE_NAME
from wal_pipeline.commands.backup.local.volume_tar import TAR_END, framed_size
from wal_pipeline.commands.inventory.leases import find_leases, is_over, needed_backups
from wal_pipeline.errors import BaseBackupError, CodecError, StoreError
from wal_pipeline.stores.base import StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn

_log = logging.getLogger(__name__)
_LARGEST_PART_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class UnfinishedBackup:
    """A base backup that was cut: ``volumes`` that all stores have, and what lies in them.

    ``files`` lie whole in one volume, ``large`` ones in parts, of which some may lack. A volume that also holds
    something else is not among them: it was copied when a file in it had changed already. To copy it again would put
    the older state of that file behind the newer one, for whoever opens volumes in their order by hand.
    """

    backup_id: str
    start_lsn: Lsn
    volumes: Mapping[int, BackupObject]
    files: Mapping[str, IndexedFile]
    large: Mapping[str, BegunFile]


def find_unfinished(
    places: Sequence[ClusterStore], encoder: StreamEncoder, identities: Sequence[Any]
) -> list[UnfinishedBackup]:
    """Return the base backups that were cut and can be gone on with, the newest first.

    There are several where one that went on with another was cut too. A volume counts where every store has it with its
    size. What cannot be read is not gone on with.
    """
    try:
        held = [_unfinished_objects(place) for place in places]
    except StoreError as error:
        _log.warning("no earlier base backup is gone on with: %s", error.message)
        return []
    common = set.intersection(*(set(one) for one in held)) if held else set[str]()
    found = []
    for backup_id in sorted(common, reverse=True):
        try:
            unfinished = _read(places[0], backup_id, [one[backup_id] for one in held], encoder, identities)
        except (StoreError, BaseBackupError, CodecError) as error:
            _log.warning("base backup '%s', which was cut, is not gone on with: %s", backup_id, error.message)
            continue
        if unfinished is not None:
            found.append(unfinished)
    return found


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
    found = _whole(backup_id, index, there)
    return found if found.files or found.large else None


def _whole(backup_id: str, index: UnfinishedIndex, there: Mapping[int, BackupObject]) -> UnfinishedBackup:
    """Return what lies in these volumes, of which only those count that hold nothing else."""
    in_one = {path: file for path, file in index.files.items() if len(file.parts) == 1}
    in_several = [_begun(file) for path, file in index.files.items() if path not in in_one]
    large = [*index.begun.values(), *in_several]
    known_bytes: Counter[int] = Counter()
    for part in (*(file.parts[0] for file in in_one.values()), *(part for file in large for part in file.parts)):
        known_bytes[part.volume] += framed_size(part.size_bytes)
    volumes = {
        number: item for number, item in there.items() if known_bytes[number] + len(TAR_END) == item.content_size_bytes
    }
    return UnfinishedBackup(
        backup_id,
        index.start_lsn,
        volumes,
        {path: file for path, file in in_one.items() if file.parts[0].volume in volumes},
        {kept.path: kept for file in large if (kept := _kept(file, volumes)).parts},
    )


def _begun(file: IndexedFile) -> BegunFile:
    return BegunFile(file.path, file.size_bytes, file.modified_ns, file.mode, file.parts)


def _kept(file: BegunFile, volumes: Mapping[int, BackupObject]) -> BegunFile:
    """Return a large file with those of its parts that lie in these volumes."""
    parts: tuple[FilePart, ...] = tuple(part for part in file.parts if part.volume in volumes)
    return BegunFile(file.path, file.size_bytes, file.modified_ns, file.mode, parts)


def _all_have(held: Sequence[dict[str, StoredObject]], item: BackupObject) -> bool:
    return all(item.name in objects and objects[item.name].size_bytes == item.size_bytes for objects in held)


def _opened(place: ClusterStore, backup_id: str, name: str, encoder: StreamEncoder, identities: Sequence[Any]) -> bytes:
    content = io.BytesIO()
    with place.store.open_described(place.layout.base_key(backup_id, name)) as (described, stream):
        size_bytes = int(described.metadata.get(CONTENT_SIZE_NAME, "0"))
        if size_bytes > _LARGEST_PART_BYTES:
            raise BaseBackupError(f"'{name}' opens to {size_bytes} bytes, expected at most {_LARGEST_PART_BYTES}")
        item = BackupObject(name, described.size_bytes, "", size_bytes)
        opener = StreamOpener(encoder.codec, item, content.write)
        open_stream(StoredStream(stream), opener, encoder.encrypted, identities)
    return content.getvalue()
