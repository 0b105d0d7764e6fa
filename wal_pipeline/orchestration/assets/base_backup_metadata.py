"""Describes one base backup on one store as a materialization for the UI."""

from typing import TYPE_CHECKING

import dagster as dg

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.text import moment_utc, size

if TYPE_CHECKING:
    from wal_pipeline.commands.backup.restorable import StoreOutcome

_MIB = 2**20


def backup_materialization(
    keys: Keys, backup: BaseBackup, store: "StoreOutcome", seconds: float | None = None
) -> dg.AssetMaterialization:
    """Return the materialization of one base backup's copy on one store. ``seconds``: the duration of the backup."""
    found: dict[str, dg.MetadataValue] = {"answer": dg.MetadataValue.text(_sentence(backup, store))}
    if backup.note:
        found["note"] = dg.MetadataValue.text(backup.note)
    if store.error is not None:
        found["error"] = dg.MetadataValue.text(store.error)
    if backup.warnings:
        found["warnings"] = dg.MetadataValue.text("\n".join(backup.warnings))
    if backup.damaged_pages:
        found["damaged_pages"] = dg.MetadataValue.text("\n".join(str(one) for one in backup.damaged_pages))
    found |= _numbers(backup, seconds) | _facts(backup)
    return dg.AssetMaterialization(
        asset_key=keys.base_backup(store.store),
        partition=backup.backup_id,
        description=f"{backup.kind.value} base backup on {store.store}",
        metadata=found,
    )


def _sentence(backup: BaseBackup, store: "StoreOutcome") -> str:
    lacks = "" if store.restorable else ": it cannot be restored from there yet"
    sizes = f"{size(backup.size_bytes)}, stored as {size(backup.stored_size_bytes)}"
    moment = moment_utc(backup.finished_at)
    return f"{backup.kind.value} base backup on {store.store}, finished {moment}, {sizes}{lacks}"


def _numbers(backup: BaseBackup, seconds: float | None) -> dict[str, dg.MetadataValue]:
    values = {
        "size_mib": backup.size_bytes / _MIB,
        "stored_mib": backup.stored_size_bytes / _MIB,
        "compression_ratio": backup.size_bytes / max(1, backup.stored_size_bytes),
    }
    if seconds is not None:
        values["seconds"] = seconds
    return {name: dg.MetadataValue.float(round(value, 1)) for name, value in values.items()}


def _facts(backup: BaseBackup) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {
        "started_at": dg.MetadataValue.timestamp(backup.started_at),
        "finished_at": dg.MetadataValue.timestamp(backup.finished_at),
    }
    texts = {
        "lsn": f"{backup.start_lsn} to {backup.stop_lsn} on timeline {backup.timeline}",
        "server": f"PostgreSQL {release(backup.server_version)}",
        "system_identifier": str(backup.system_identifier),
    }
    if backup.parent_id is not None:
        texts["parent_id"] = backup.parent_id
    return found | {name: dg.MetadataValue.text(value) for name, value in texts.items()}


def release(server_version: int) -> str:
    """Return a server's version as people write it: 180006 is 18.6."""
    return f"{server_version // 10_000}.{server_version % 10_000}"
