"""Reads base backups' manifests from a store, and no more of an object than a manifest can have."""

from typing import Final

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest
from wal_pipeline.archive.format.backup_manifest_json import parse_manifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.stores.base import Store

MAX_MANIFEST_BYTES: Final = 256 << 20
_READ_BYTES: Final = 1 << 20


def read_base_backup(store: Store, layout: Layout, backup_id: str) -> BaseBackupManifest:
    """Read one base backup's manifest. Raises: ObjectMissingError, BaseBackupError."""
    where = f"{store.name}: {layout.manifest_key(backup_id)}"
    return parse_manifest(read_manifest_bytes(store, layout, backup_id), backup_id=backup_id, where=where)


def read_manifest_bytes(store: Store, layout: Layout, backup_id: str) -> bytes:
    """Read a base backup's ``manifest.json``. Raises: BaseBackupError, ObjectMissingError, StoreError."""
    key = layout.manifest_key(backup_id)
    with store.open(key) as stream:
        parts, size_bytes = [], 0
        while data := stream.read(_READ_BYTES):
            parts.append(data)
            size_bytes += len(data)
            if size_bytes > MAX_MANIFEST_BYTES:
                raise BaseBackupError(f"manifest '{store.name}:{key}' has more than {MAX_MANIFEST_BYTES} bytes")
    return b"".join(parts)
