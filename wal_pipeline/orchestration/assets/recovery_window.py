"""Defines the asset of the recovery windows, which each archiving run brings up to date."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.archive.recovery.window import RecoveryWindow
    from wal_pipeline.commands.health.windows import CurrentWindows

GROUP = "recovery"
Metadata = dict[str, dg.MetadataValue]


def build_window_asset(keys: Keys, stores: Sequence[str]) -> dg.AssetsDefinition:
    """Return the asset. Materializing it by hand only works out the windows again."""

    @dg.asset(
        key=keys.recovery_window,
        deps=[*(keys.wal_segment(store) for store in stores), *(keys.base_backup(store) for store in stores)],
        group_name=GROUP,
        kinds={"postgres"},
        description="The span of moments to which the cluster can be recovered, from each store and from any "
        "store, up to the exact last commit. Each archiving run brings it up to date. If `can_recover` is false, "
        "there is no base backup, and WAL alone recovers nothing.",
    )
    def recovery_window(wal_pipeline: WalPipelineResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        pipeline = wal_pipeline.open()
        metadata = window_metadata(look_at_windows(pipeline), pipeline.clock())
        return dg.MaterializeResult(metadata=metadata | storage_metadata(pipeline))

    return recovery_window


def look_at_windows(pipeline: Pipeline) -> "CurrentWindows":
    """Work out the windows now. Raises: CatalogError."""
    from wal_pipeline.commands.health.windows import current_windows
    from wal_pipeline.wiring.health import fetch_history

    return current_windows(
        pipeline.catalog,
        pipeline.settings.stores,
        system_identifier=pipeline.settings.system_identifier,
        fetch=fetch_history(pipeline),
    )


def window_materialization(
    keys: Keys, windows: "CurrentWindows", now: datetime, storage: Metadata | None = None
) -> dg.AssetMaterialization:
    """Return the materialization for a run that is not the asset's own. The UI shows ``storage`` beside the windows."""
    return dg.AssetMaterialization(keys.recovery_window, metadata=window_metadata(windows, now) | (storage or {}))


def storage_metadata(pipeline: Pipeline) -> Metadata:
    """Return the number of files and bytes on each store. Raises: CatalogError."""
    found: Metadata = {}
    backups = pipeline.catalog.measures.base_backup_bytes()
    for total in pipeline.catalog.files.totals():
        if total.status is CopyStatus.VERIFIED and total.store in pipeline.settings.stores:
            found[f"{total.store}/files"] = dg.MetadataValue.int(total.files)
            found[f"{total.store}/wal_bytes"] = dg.MetadataValue.int(total.stored_bytes)
            found[f"{total.store}/base_backup_bytes"] = dg.MetadataValue.int(backups.get(total.store, 0))
    return found


def window_metadata(windows: "CurrentWindows", now: datetime) -> Metadata:
    """Return the metadata of the windows. The UI plots its numbers over time."""
    found: Metadata = {
        "picture": dg.MetadataValue.md(_picture(windows, now)),
        "can_recover": dg.MetadataValue.bool(bool(windows.windows.get(None))),
        "base_backups": dg.MetadataValue.int(len(windows.backups)),
    }
    for store in (None, *windows.stores):
        found |= _store_metadata(windows, store, now)
    if windows.notes:
        found["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in windows.notes))
    return found


def _store_metadata(windows: "CurrentWindows", store: str | None, now: datetime) -> Metadata:
    name = "all" if store is None else store
    window = windows.main(store)
    found: Metadata = {f"{name}/open_gaps": dg.MetadataValue.int(len(windows.open_gaps(store)))}
    if store is not None:
        held = sum(store in holders for holders in windows.holders.values())
        found[f"{name}/base_backups"] = dg.MetadataValue.int(held)
    if window is None:
        return found | {f"{name}/window": dg.MetadataValue.text("no recovery from here")}
    return found | {f"{name}/{key}": value for key, value in _window(window, now).items()}


def _window(window: "RecoveryWindow", now: datetime) -> Metadata:
    found: Metadata = {
        "earliest_at": dg.MetadataValue.timestamp(window.earliest_at),
        "latest_lsn": dg.MetadataValue.text(str(window.latest_lsn)),
        "timeline": dg.MetadataValue.int(window.timeline),
        "segments": dg.MetadataValue.int(window.segments),
        "last_segment": dg.MetadataValue.text(window.last_segment),
    }
    latest_at = window.latest_commit_at_least
    if latest_at is not None:
        found["latest_commit_at"] = dg.MetadataValue.timestamp(latest_at)
        found["rpo_seconds"] = dg.MetadataValue.float(max(0.0, (now - latest_at).total_seconds()))
        found["window_hours"] = dg.MetadataValue.float((latest_at - window.earliest_at).total_seconds() / 3600)
        found["commit_times_known"] = dg.MetadataValue.bool(window.commit_times_known)
    return found


def _picture(windows: "CurrentWindows", now: datetime) -> str:
    from wal_pipeline.commands.report.charts import windows_svg

    encoded = base64.b64encode(windows_svg(windows, now).encode()).decode()
    return f"![recovery windows](data:image/svg+xml;base64,{encoded})"
