"""Describes one base backup on one store as a materialization for the UI."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import dagster as dg

from wal_pipeline.archive.format.base_backup.report import BackupReport
from wal_pipeline.archive.records import BackupMethod, BaseBackup, CopyStatus
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.text import moment_utc, size

if TYPE_CHECKING:
    from wal_pipeline.commands.backup.restorable import StoreOutcome

_MIB = 2**20
_METHODS: Final = {
    BackupMethod.LOCAL: "local: its files were read from the data directory, several at once",
    BackupMethod.REMOTE: "remote: pg_basebackup sent it in one stream",
}


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


def recorded_outcome(copy: BaseBackupCopy) -> "StoreOutcome":
    """Return what the catalog says of a copy as the outcome of a base backup on its store."""
    from wal_pipeline.commands.backup.restorable import StoreOutcome

    return StoreOutcome(copy.store, stored=True, restorable=copy.restorable_at is not None, error=copy.last_error)


def newest_again(
    instance: dg.DagsterInstance, keys: Keys, catalog: Catalog, recorded: Mapping[str, Collection[str]]
) -> Iterator[dg.AssetMaterialization]:
    """Yield the newest base backup that Dagster shows once more where only older ones were ``recorded``, by store.

    A page begins with what was recorded last, and a person reads there when the last base backup was.
    """
    shown = frozenset(instance.get_dynamic_partitions(keys.base_backup_partitions_name))
    backups = {one.backup_id: one for one in catalog.base_backups.all() if one.backup_id in shown}
    for store, ids in recorded.items():
        held = [one for one in catalog.base_backups.copies() if one.store == store and one.backup_id in backups]
        good = [one for one in held if one.status is CopyStatus.VERIFIED]
        newest = max(good, key=lambda one: backups[one.backup_id].finished_at, default=None)
        if ids and newest is not None and newest.backup_id not in ids:
            yield backup_materialization(keys, backups[newest.backup_id], recorded_outcome(newest))


def _sentence(backup: BaseBackup, store: "StoreOutcome") -> str:
    lacks = "" if store.restorable else ": it cannot be restored from there yet"
    damage = f"; {BackupReport((), backup.damaged_pages).damage_text}" if backup.is_damaged else ""
    sizes = f"{size(backup.size_bytes)}, stored as {size(backup.stored_size_bytes)}"
    moment = moment_utc(backup.finished_at)
    return f"{backup.kind.value} base backup on {store.store}, finished {moment}, {sizes}{lacks}{damage}"


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
        texts |= _restored_from(backup)
    return (
        {"method": dg.MetadataValue.text(_METHODS[backup.method])}
        | found
        | {name: dg.MetadataValue.text(value) for name, value in texts.items()}
    )


def _restored_from(backup: BaseBackup) -> dict[str, str]:
    """Say what a restore of an incremental base backup needs of earlier ones."""
    if backup.fetched_size_bytes is None:
        return {"a restore downloads": "all base backups of its chain, which are combined"}
    earlier = backup.fetched_size_bytes - backup.stored_size_bytes
    return {"a restore downloads": f"{size(backup.fetched_size_bytes)}, of which {size(earlier)} of earlier ones"}


def release(server_version: int) -> str:
    """Return a server's version as people write it: 180006 is 18.6."""
    return f"{server_version // 10_000}.{server_version % 10_000}"
