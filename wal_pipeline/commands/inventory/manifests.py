"""What one store holds of a cluster: listed when needed, and never taken from the catalog."""

from typing import Final

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest, is_backup_id
from wal_pipeline.archive.format.backup_manifest_json import parse_manifest
from wal_pipeline.archive.format.keys import MANIFEST_NAME, Layout
from wal_pipeline.errors import BaseBackupError, StoreError, WalPipelineError
from wal_pipeline.stores.base import Store

MAX_MANIFEST_BYTES: Final = 256 << 20
_READ_BYTES: Final = 1 << 20


def list_base_backups(store: Store, layout: Layout) -> tuple[tuple[BaseBackupManifest, ...], tuple[str, ...]]:
    """Return the base backups that are whole by their manifest, in the order of time, and what the others lack.

    Raises: StoreError.
    """
    found: list[BaseBackupManifest] = []
    faults: list[str] = []
    for backup_id, sizes in _base_objects(store, layout).items():
        if MANIFEST_NAME not in sizes:
            continue  # begun and never finished: it does not exist
        try:
            manifest = read_base_backup(store, layout, backup_id)
        except StoreError:
            raise
        except WalPipelineError as error:
            faults.append(f"{store.name}: {error.message}")
            continue
        wrong = next((item.name for item in manifest.objects if sizes.get(item.name) != item.size_bytes), None)
        if wrong is None:
            found.append(manifest)
        else:
            faults.append(
                f"{store.name}: base backup '{backup_id}' is left out: '{wrong}' is missing or of another size"
            )
    return tuple(found), tuple(faults)


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


def _base_objects(store: Store, layout: Layout) -> dict[str, dict[str, int]]:
    """Return the sizes of all objects of base backups, by backup id and name."""
    found: dict[str, dict[str, int]] = {}
    for item in store.list(layout.base_root):
        backup_id = layout.backup_id_of(item.key)
        if backup_id is not None and is_backup_id(backup_id):
            found.setdefault(backup_id, {})[item.key.rsplit("/", 1)[-1]] = item.size_bytes
    return found
