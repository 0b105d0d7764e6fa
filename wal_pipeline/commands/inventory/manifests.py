"""Reads base backups' manifests from a store, and no more of an object than a manifest can have."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.base_backup.manifest_json import parse_manifest
from wal_pipeline.archive.format.base_backup.report import REPORT_NAME, BackupReport
from wal_pipeline.errors import BaseBackupError, ObjectMissingError
from wal_pipeline.stores.cluster_store import ClusterStore

MAX_MANIFEST_BYTES: Final = 256 << 20
_MAX_REPORT_BYTES: Final = 16 << 20
_READ_BYTES: Final = 1 << 20


def read_base_backup(place: ClusterStore, backup_id: str) -> BaseBackupManifest:
    """Read one base backup's manifest. Raises: ObjectMissingError, BaseBackupError."""
    where = f"{place.name}: {place.layout.manifest_key(backup_id)}"
    return parse_manifest(read_manifest_bytes(place, backup_id), backup_id=backup_id, where=where)


def read_with_report(place: ClusterStore, backup_id: str) -> BaseBackupManifest:
    """Read one base backup's manifest, and what was said of it. Raises: as ``read_base_backup``."""
    return replace(read_base_backup(place, backup_id), report=read_report(place, backup_id))


def read_report(place: ClusterStore, backup_id: str) -> BackupReport:
    """Read what was said of a base backup; an empty report where it has none. Raises: StoreError."""
    data = read_report_bytes(place, backup_id)
    return BackupReport() if data is None else BackupReport.parse(data)


def read_report_bytes(place: ClusterStore, backup_id: str) -> bytes | None:
    """Read a base backup's ``report.json``; None where it has none. Raises: BaseBackupError, StoreError."""
    try:
        return _read(place, place.layout.base_key(backup_id, REPORT_NAME), _MAX_REPORT_BYTES)
    except ObjectMissingError:
        return None


def read_manifest_bytes(place: ClusterStore, backup_id: str) -> bytes:
    """Read a base backup's ``manifest.json``. Raises: BaseBackupError, ObjectMissingError, StoreError."""
    return _read(place, place.layout.manifest_key(backup_id), MAX_MANIFEST_BYTES)


def _read(place: ClusterStore, key: str, max_bytes: int) -> bytes:
    with place.store.open(key) as stream:
        parts, size_bytes = [], 0
        while data := stream.read(_READ_BYTES):
            parts.append(data)
            size_bytes += len(data)
            if size_bytes > max_bytes:
                raise BaseBackupError(f"manifest '{place.name}:{key}' has more than {max_bytes} bytes")
    return b"".join(parts)


def with_reports(found: Iterable[BaseBackupManifest]) -> dict[str, BaseBackupManifest]:
    """Return one manifest of each base backup, by its id: one with a report where any store has that."""
    chosen: dict[str, BaseBackupManifest] = {}
    for manifest in found:
        if manifest.backup_id not in chosen or chosen[manifest.backup_id].report.is_empty:
            chosen[manifest.backup_id] = manifest
    return chosen
