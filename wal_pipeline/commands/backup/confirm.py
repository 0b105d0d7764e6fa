"""Looks at a base backup's objects again, before anything says that they are there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.commands.copies.prove import head_proved
from wal_pipeline.commands.copies.stored_bytes import require_size
from wal_pipeline.commands.inventory.wholeness import find_fault
from wal_pipeline.errors import BaseBackupError, DamagedCopyError, ObjectMissingError
from wal_pipeline.stores.base import Store, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore


@dataclass(slots=True)
class ProvenObjects:
    """The objects that one store has proved to hold, with the ETag that it gave each of them then."""

    store: Store
    _proved: dict[str, StoredObject] = field(default_factory=dict)

    def note(self, proved: StoredObject) -> None:
        """Keep how the store described an object when it was proved."""
        self._proved[proved.key] = proved

    def require_all(self) -> None:
        """Look again at every object. Raises: ObjectMissingError, DamagedCopyError where one changed; StoreError."""
        listed: dict[str, StoredObject] = {}
        for prefix in sorted({f"{key.rpartition('/')[0]}/" for key in self._proved}):
            listed |= {item.key: item for item in self.store.list(prefix)}
        for key, proved in self._proved.items():
            found = listed.get(key) or self.store.head(key)
            if found is None:
                raise ObjectMissingError(self.store.name, f"object '{key}' was stored and is not there any more")
            require_size(self.store, key, found.size_bytes, proved.size_bytes)
            etag = found.etag or head_proved(self.store, key).etag
            if etag != proved.etag:
                raise DamagedCopyError(
                    self.store.name, f"object '{key}' has ETag '{etag}', expected '{proved.etag}': it was replaced"
                )


def listed_objects(place: ClusterStore, backup_id: str) -> Mapping[str, StoredObject]:
    """Return all objects of a base backup on a store, by their names. Raises: StoreError."""
    prefix = place.layout.manifest_key(backup_id).rpartition("/")[0] + "/"
    return {item.key.rpartition("/")[2]: item for item in place.store.list(prefix)}


def require_whole(place: ClusterStore, manifest: BaseBackupManifest) -> None:
    """Look at the store: it must have every object of the manifest with its size.

    Raises: BaseBackupError, StoreError.
    """
    fault = find_fault(manifest, listed_objects(place, manifest.backup_id))
    if fault is not None:
        raise BaseBackupError(
            f"{place.name}: {fault.reason}", hint="'wal-pipeline verify --repair' refills it from another store."
        )
