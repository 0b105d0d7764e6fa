"""Describes one base backup on one store as a materialization for the UI."""

from typing import TYPE_CHECKING

import dagster as dg

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.orchestration.keys import Keys

if TYPE_CHECKING:
    from wal_pipeline.commands.backup.restorable import StoreOutcome


def backup_materialization(
    keys: Keys, backup: BaseBackup, store: "StoreOutcome", seconds: float | None = None
) -> dg.AssetMaterialization:
    """Return the materialization of one base backup's copy on one store. ``seconds``: the duration of the backup."""
    metadata: dict[str, dg.MetadataValue] = {
        "kind": dg.MetadataValue.text(backup.kind.value),
        "timeline": dg.MetadataValue.int(backup.timeline),
        "start_lsn": dg.MetadataValue.text(str(backup.start_lsn)),
        "stop_lsn": dg.MetadataValue.text(str(backup.stop_lsn)),
        "started_at": dg.MetadataValue.timestamp(backup.started_at),
        "finished_at": dg.MetadataValue.timestamp(backup.finished_at),
        "server_version": dg.MetadataValue.int(backup.server_version),
        "system_identifier": dg.MetadataValue.text(str(backup.system_identifier)),
        "size_bytes": dg.MetadataValue.int(backup.size_bytes),
        "stored_size_bytes": dg.MetadataValue.int(backup.stored_size_bytes),
        "compression_ratio": dg.MetadataValue.float(backup.size_bytes / max(1, backup.stored_size_bytes)),
        "restorable": dg.MetadataValue.bool(store.restorable),
    }
    if backup.parent_id is not None:
        metadata["parent_id"] = dg.MetadataValue.text(backup.parent_id)
    if backup.warnings:
        metadata["warnings"] = dg.MetadataValue.text("\n".join(backup.warnings))
    if backup.damaged_pages:
        metadata["damaged_pages"] = dg.MetadataValue.text("\n".join(str(one) for one in backup.damaged_pages))
    if store.error is not None:
        metadata["error"] = dg.MetadataValue.text(store.error)
    if seconds is not None:
        metadata["seconds"] = dg.MetadataValue.float(seconds)
    return dg.AssetMaterialization(
        asset_key=keys.base_backup(store.store),
        partition=backup.backup_id,
        description=f"{backup.kind.value} base backup on {store.store}",
        metadata=metadata,
    )
