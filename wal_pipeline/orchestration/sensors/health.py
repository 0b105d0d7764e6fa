"""Defines the sensor that looks at everything each minute, updates the alerts and sends them."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from wal_pipeline.errors import CatalogError
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.sensors.run_failure import resolve_run_failures
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.health.facts import HealthFacts
    from wal_pipeline.commands.health.watch import HealthReport

# Dagster keeps every observation for ever, so a minute without a change leaves none.
OBSERVE_EVERY = timedelta(minutes=10)


def build_health_sensor(keys: Keys, *, interval_seconds: int) -> dg.SensorDefinition:
    """Return the sensor of one cluster's health. It starts no run."""

    @dg.sensor(
        name="health_sensor",
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags=keys.tags,
        description=keys.described(
            "Looks at pg_stat_archiver, the spool, the disks, the stores' records, base backups, drills and gaps."
            " Opens, refreshes and resolves alerts, and sends them. Its numbers are observations of the spool "
            "asset."
        ),
    )
    def health_sensor(context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource) -> dg.SensorResult:
        from wal_pipeline.commands.alerts.catalog_outage import CatalogOutage
        from wal_pipeline.commands.health.watch import watch_health
        from wal_pipeline.wiring.health import destinations, fact_sources, health_limits

        pipeline = wal_pipeline.open()
        _settle_own(context, keys, pipeline)
        report = watch_health(
            fact_sources(pipeline, need_catalog=False),
            health_limits(pipeline),
            lambda: destinations(pipeline),
            cluster=keys.cluster,
            outage=CatalogOutage.from_json(_seen(context.cursor)["outage"]),
        )
        for name, reason in report.delivery.failures.items():
            context.log.warning(f"destination {name} did not take the notification: {reason}")
        cursor, is_due = _next_cursor(context.cursor, report)
        events = [spool_observation(keys, report.facts, pipeline)] if is_due else []
        return dg.SensorResult(skip_reason=report.describe(), asset_events=events, cursor=cursor)

    return health_sensor


def _settle_own(context: dg.SensorEvaluationContext, keys: Keys, pipeline: Pipeline) -> None:
    """Note the tick and resolve the alerts of failed runs. Without the catalog the next tick does it."""
    from wal_pipeline.commands.health.facts import note_sensor

    try:
        note_sensor(pipeline.catalog, pipeline.clock())
        resolve_run_failures(context.instance, keys, pipeline)
    except CatalogError as error:
        context.log.warning(error.message)


def spool_observation(keys: Keys, facts: "HealthFacts", pipeline: Pipeline) -> dg.AssetObservation:
    """Return one look as an observation, whose numbers the UI plots."""
    from wal_pipeline.commands.status.status import FAILED, LAG, SUCCESS_RATE, judge
    from wal_pipeline.wiring.health import health_limits

    status = judge(facts, health_limits(pipeline))
    numbers: dict[str, float | None] = {
        "success_rate": status.metric(SUCCESS_RATE).value,
        "lag_seconds": status.metric(LAG).value,
        "failed_archives": status.metric(FAILED).value,
        "problems": len(status.problems),
        "rpo_seconds": status.point.rpo_seconds,
        "unarchived_bytes": status.point.unarchived_bytes,
    }
    if facts.spool is not None:
        numbers |= {"spool_files": facts.spool.files, "spool_bytes": facts.spool.size_bytes}
        numbers["quarantined_files"] = len(facts.spool.quarantined)
    if facts.disks:
        numbers["disk_free_bytes"] = facts.disks[0].free_bytes
    if facts.server.facts is not None:
        archiver = facts.server.facts.archiver
        numbers["pg_stat_archiver/archived_count"] = archiver.archived_count
        numbers["pg_stat_archiver/failed_count"] = archiver.failed_count
        numbers["pg_stat_archiver/ready_count"] = archiver.ready_count
    for store in facts.stores:
        numbers[f"{store.store}/stored_bytes"] = store.stored_bytes
        numbers[f"{store.store}/consecutive_failures"] = store.state.consecutive_failures
    metadata = {name: _number(value) for name, value in numbers.items() if value is not None}
    return dg.AssetObservation(keys.spool, metadata={"verdict": status.verdict.value, **metadata})


def _number(value: float) -> dg.IntMetadataValue | dg.FloatMetadataValue:
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(float(value))


def _next_cursor(cursor: str | None, report: "HealthReport") -> tuple[str | None, bool]:
    """Return the new cursor, and whether an observation is due: after a change, or after ten minutes."""
    seen = sorted(f"{kind.value} {one.subject}" for kind, found in report.observed.items() for one in found)
    last, at = _seen(cursor), report.facts.at
    outage = None if report.outage is None else report.outage.as_json()
    passed = last["at"] is None or abs(at - datetime.fromisoformat(last["at"])) >= OBSERVE_EVERY
    if report.facts.catalog_error is not None or (not passed and last["seen"] == seen):
        return json.dumps({**last, "outage": outage}), False
    return json.dumps({"at": at.isoformat(), "seen": seen, "outage": outage}), True


def _seen(cursor: str | None) -> dict[str, Any]:
    """Return the cursor of the tick before, as a mapping."""
    return {"at": None, "seen": None, "outage": None, **(json.loads(cursor) if cursor else {})}
