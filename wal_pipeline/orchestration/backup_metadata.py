"""What the UI shows of one base backup on one store."""

import dagster as dg

from wal_pipeline.archive.base_backup import BaseBackupManifest
from wal_pipeline.commands.base_backup_records import StoreOutcome
from wal_pipeline.orchestration.keys import Keys


def backup_materialization(
    keys: Keys, manifest: BaseBackupManifest, store: StoreOutcome, seconds: float | None = None
) -> dg.AssetMaterialization:
    """Return the record of one base backup's copy on one store. ``seconds``: how long taking it took."""
    metadata: dict[str, dg.MetadataValue] = {
        "kind": dg.MetadataValue.text(manifest.kind.value),
        "timeline": dg.MetadataValue.int(manifest.timeline),
        "start_lsn": dg.MetadataValue.text(str(manifest.start_lsn)),
        "stop_lsn": dg.MetadataValue.text(str(manifest.stop_lsn)),
        "started_at": dg.MetadataValue.timestamp(manifest.started_at),
        "finished_at": dg.MetadataValue.timestamp(manifest.finished_at),
        "server_version": dg.MetadataValue.int(manifest.server_version),
        "system_identifier": dg.MetadataValue.text(str(manifest.system_identifier)),
        "size_bytes": dg.MetadataValue.int(manifest.size_bytes),
        "stored_size_bytes": dg.MetadataValue.int(manifest.stored_size_bytes),
        "compression_ratio": dg.MetadataValue.float(manifest.size_bytes / max(1, manifest.stored_size_bytes)),
        "restorable": dg.MetadataValue.bool(store.restorable),
    }
    if manifest.parent_id is not None:
        metadata["parent_id"] = dg.MetadataValue.text(manifest.parent_id)
    if store.error is not None:
        metadata["error"] = dg.MetadataValue.text(store.error)
    if seconds is not None:
        metadata["seconds"] = dg.MetadataValue.float(seconds)
    return dg.AssetMaterialization(
        asset_key=keys.base_backup(store.store),
        partition=manifest.backup_id,
        description=f"{manifest.kind.value} base backup on {store.store}",
        metadata=metadata,
    )
