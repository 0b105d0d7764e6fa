"""Removes what unfinished base backups left in a store: objects without a manifest, and uploads cut short."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from wal_pipeline.archive.format.base_backup.manifest import is_backup_id, is_backup_object
from wal_pipeline.archive.format.base_backup.unfinished import is_index_part
from wal_pipeline.commands.inventory.leases import find_leases, is_over, needed_backups, spent_keys
from wal_pipeline.errors import ObjectLockedError, StoreError
from wal_pipeline.stores.base import MultipartUpload, Store, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemovedUnfinished:
    """The removals from one store: the ids of base backups without a manifest, objects, and aborted uploads."""

    store: str
    backup_ids: tuple[str, ...]
    objects: int
    uploads: int


@dataclass(slots=True)
class _Leftover:
    objects: list[StoredObject]
    uploads: list[MultipartUpload]

    @property
    def was_complete(self) -> bool:
        """Whether all was there but our manifest, which is written last."""
        return any(_name(item).startswith("backup_manifest") for item in self.objects)

    @property
    def was_cut(self) -> bool:
        """Whether it surely ended before our manifest: the parts of an index are removed before that is stored."""
        return any(is_index_part(_name(item)) for item in self.objects)

    @property
    def touched_at(self) -> datetime:
        """When the last object or upload was added: a base backup that still runs adds more."""
        return max([item.modified_at for item in self.objects] + [item.begun_at for item in self.uploads])


def remove_unfinished(
    place: ClusterStore,
    *,
    now: datetime,
    older_than: timedelta,
    keep: Collection[str] = (),
    keeps_all_known: bool = False,
) -> RemovedUnfinished:
    """Remove the objects of base backups that have no manifest on the store, and abort uploads below their prefix.

    A base backup that a process is storing or refilling now is left alone, whatever its age: it has a lease. Any other
    one is left alone until nothing was added to it for ``older_than``: an older program holds no lease. The ids to
    ``keep`` stay, and all objects that are not ours. Locked objects are left for a later call.

    One that has PostgreSQL's own manifest was complete but for ours, and may have lost it: it stays too, until
    retention knows a newer one that stands for it. Only where it was surely cut does it go, and only where nobody ever
    knew it: ``keeps_all_known`` says that ``keep`` holds all that the catalog, every store and their hidden versions
    know. Parts of an index that stayed beside a manifest are removed, so that they prove no cut if that is lost.

    Raises: StoreError.
    """
    store, layout = place.store, place.layout
    removed: list[str] = []
    objects = uploads = 0
    leftovers, spent_parts = _leftovers(place)
    every = find_leases(place)  # after the listing: what was listed has its lease by now
    leases = [found for found in every if not is_over(found)]
    if any(found.lease is None for found in leases):
        _log.warning("%s: a lease cannot be read, so leftovers of base backups stay", store.name)
        return RemovedUnfinished(store.name, (), 0, 0)
    kept = needed_backups(leases).union(keep)
    for backup_id, leftover in sorted(leftovers.items()):
        stays = leftover.was_complete and not (leftover.was_cut and keeps_all_known)
        if backup_id in kept or stays or now - leftover.touched_at < older_than:
            continue
        for upload in leftover.uploads:
            store.abort_upload(upload)
        if leftover.objects and store.head(layout.manifest_key(backup_id)) is None:
            objects += _delete(store, (item.key for item in leftover.objects))
            removed.append(backup_id)
        uploads += len(leftover.uploads)
    _delete(store, (item.key for item in spent_parts if now - item.modified_at >= older_than))
    _delete(store, spent_keys(every))
    if removed or uploads:
        _log.info("%s: removed %d objects of base backups without a manifest: %s", store.name, objects, removed)
    return RemovedUnfinished(store.name, tuple(removed), objects, uploads)


def remove_failed(place: ClusterStore, backup_id: str) -> int:
    """Remove the objects of our own base backup that failed, unless its manifest is there; return how many.

    Raises: StoreError.
    """
    store, layout = place.store, place.layout
    if store.head(layout.manifest_key(backup_id)) is not None:
        return 0
    prefix = layout.base_key(backup_id, "x").removesuffix("x")
    for upload in list(store.uploads(prefix)):
        store.abort_upload(upload)
    return _delete(store, [item.key for item in store.list(prefix)])


def _leftovers(place: ClusterStore) -> tuple[dict[str, _Leftover], list[StoredObject]]:
    """Group objects and uploads by base backup, without the objects of those that have a manifest.

    Of these return the parts of their index, which nobody needs any more.
    """
    found: dict[str, _Leftover] = defaultdict(lambda: _Leftover([], []))
    store, layout = place.store, place.layout
    finished = set()
    for item in store.list(layout.base_root):
        backup_id = layout.backup_id_of(item.key)
        if backup_id is None or not is_backup_id(backup_id):
            continue
        if item.key == layout.manifest_key(backup_id):
            finished.add(backup_id)
        if is_backup_object(_name(item)):
            found[backup_id].objects.append(item)
    whole = [found.pop(backup_id) for backup_id in finished if backup_id in found]
    spent_parts = [item for leftover in whole for item in leftover.objects if is_index_part(_name(item))]
    for upload in store.uploads(layout.base_root):
        backup_id = layout.backup_id_of(upload.key)
        if backup_id is not None and is_backup_id(backup_id):
            found[backup_id].uploads.append(upload)
    return found, spent_parts


def _name(item: StoredObject) -> str:
    return item.key.rsplit("/", 1)[-1]


def _delete(store: Store, keys: Iterable[str]) -> int:
    count = 0
    for key in keys:
        try:
            count += 1 if store.delete(key) else 0
        except ObjectLockedError as error:
            _log.warning("%s", error.message)
    return count


def clean_leftovers(place: ClusterStore, now: datetime, older_than: timedelta) -> None:
    """Remove what killed base backups left. A store that does not answer fails again when it is written to."""
    try:
        remove_unfinished(place, now=now, older_than=older_than)
    except StoreError as error:
        _log.warning("leftovers of earlier base backups stay: %s", error.message)


def try_remove(place: ClusterStore, backup_id: str) -> None:
    """Remove a failed base backup's objects if the store allows it; ``remove_unfinished`` removes the rest later."""
    try:
        remove_failed(place, backup_id)
    except StoreError as error:
        _log.warning("objects of the failed base backup '%s' stay for now: %s", backup_id, error.message)
