"""Reads base backups' manifests from a store, and no more of an object than a manifest can have."""

from typing import Final

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest
from wal_pipeline.archive.format.backup_manifest_json import parse_manifest
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.stores.cluster_store import ClusterStore

MAX_MANIFEST_BYTES: Final = 256 << 20
_READ_BYTES: Final = 1 << 20


def read_base_backup(place: ClusterStore, backup_id: str) -> BaseBackupManifest:
    """Read one base backup's manifest. Raises: ObjectMissingError, BaseBackupError."""
    where = f"{place.name}: {place.layout.manifest_key(backup_id)}"
    return parse_manifest(read_manifest_bytes(place, backup_id), backup_id=backup_id, where=where)


def read_manifest_bytes(place: ClusterStore, backup_id: str) -> bytes:
    """Read a base backup's ``manifest.json``. Raises: BaseBackupError, ObjectMissingError, StoreError."""
    key = place.layout.manifest_key(backup_id)
    with place.store.open(key) as stream:
        parts, size_bytes = [], 0
        while data := stream.read(_READ_BYTES):
            parts.append(data)
            size_bytes += len(data)
            if size_bytes > MAX_MANIFEST_BYTES:
                raise BaseBackupError(f"manifest '{place.name}:{key}' has more than {MAX_MANIFEST_BYTES} bytes")
    return b"".join(parts)
