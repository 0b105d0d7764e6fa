"""Runs a drill from each store in turn, records it, and opens or resolves its alert."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.drills import DrillRecord
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.drill.drill import Drill
from wal_pipeline.commands.drill.result import DrillResult
from wal_pipeline.commands.restore_times import keep_time


def run_drills(
    open_drill: Callable[[str], Drill],
    stores: Iterable[str],
    catalog: Catalog,
    audit: AuditLog | None = None,
    *,
    by: str | None = None,
) -> Iterator[DrillResult]:
    """Run a drill from each store; record each, open an alert for one that failed and resolve it for one that passed.

    ``by``: who or what asked for it, as the audit log shall say.

    Raises: RestoreError where the scratch folder is in use; CatalogError.
    """
    for store in stores:
        result = open_drill(store).run()
        catalog.drills.record(_record(result))
        if result.measured is not None:
            keep_time(catalog, result.measured)
        if audit is not None:
            values = {"base_backup": result.base_backup, "target": result.target, "message": result.error}
            audit.write("drill", store, "passed" if result.ok else "failed", by=by, **values)
        if result.ok:
            catalog.alerts.resolve(AlertKind.DRILL_FAILED, store, result.finished_at)
        else:
            seen = Observation(store, f"the drill from {store} failed: {result.error}", details=drill_values(result))
            catalog.alerts.observe(AlertKind.DRILL_FAILED, seen, result.finished_at)
        yield result


def drill_values(result: DrillResult) -> dict[str, Any]:
    """Return a drill's measures and checks as values that JSON can hold."""
    return {
        "base_backup": result.base_backup,
        "predicted_commit_at": result.predicted_commit_at.isoformat() if result.predicted_commit_at else None,
        "reached_commit_at": result.reached_commit_at.isoformat() if result.reached_commit_at else None,
        "reached_lsn": result.reached_lsn,
        "segments": result.segments,
        "downloaded_bytes": result.downloaded_bytes,
        "rto_seconds": result.rto_seconds,
        "predicted_seconds": None if result.measured is None else result.measured.predicted_seconds,
        "took_seconds": None if result.measured is None else result.measured.took_seconds,
        "not_proven": list(result.not_proven),
        "warnings": list(result.warnings),
        "checks": {check.name: check.ok for check in result.checks},
        "error": result.error,
    }


def _record(result: DrillResult) -> DrillRecord:
    return DrillRecord(
        drill_id=uuid.uuid4().hex,
        store=result.store,
        target=result.target,
        started_at=result.started_at,
        finished_at=result.finished_at,
        ok=result.ok,
        seconds=dict(result.seconds) | ({"rto": result.rto_seconds} if result.rto_seconds is not None else {}),
        detail=drill_values(result),
    )
