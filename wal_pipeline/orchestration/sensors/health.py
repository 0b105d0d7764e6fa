"""The sensor that looks at everything each minute, settles the alerts and tells people; it starts no run."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from wal_pipeline.archive.alerts import Alert, AlertKind, Observation
from wal_pipeline.errors import CatalogError
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.subject import ALERT_LASTS, alert_is_by_hand, is_by_hand, is_of, subject_of
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.health.facts import HealthFacts
    from wal_pipeline.commands.health.watch import HealthReport

# Dagster keeps every observation for ever, so a quiet minute leaves none; a change is told at once.
OBSERVE_EVERY = timedelta(minutes=10)
_MOST_TEXT = 500
_MOST_RUNS = 500
_BY_HAND = (
    f"; it was started by hand: this alert ends after a success of the same, after {ALERT_LASTS.days} days, or with "
    "'wal-pipeline alerts close'"
)


def build_health_sensor(keys: Keys, *, interval_seconds: int) -> dg.SensorDefinition:
    """Return the sensor of one cluster's health."""

    @dg.sensor(
        name="health_sensor",
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at pg_stat_archiver, the spool, the disks, the stores' records, base backups, drills and "
        "gaps; opens, refreshes and resolves alerts and sends them. Its numbers are observations of the spool asset.",
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
            context.log.warning(f"notification {name} was not taken: {reason}")
        cursor, is_due = _next_cursor(context.cursor, report)
        events = [spool_observation(keys, report.facts, pipeline)] if is_due else []
        return dg.SensorResult(skip_reason=report.describe(), asset_events=events, cursor=cursor)

    return health_sensor


def build_run_failure_sensor(keys: Keys) -> dg.SensorDefinition:
    """Return the sensor that makes a failed run an alert; the next success of the same resolves it."""

    @dg.run_failure_sensor(
        name="run_failure_sensor",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Opens an alert for each job, and for the assets of each run without one, whose last run failed; "
        "the health sensor resolves it after a success of the same.",
    )
    def run_failure_sensor(context: dg.RunFailureSensorContext, wal_pipeline: WalPipelineResource) -> None:
        run = context.dagster_run
        if not is_of(run, keys):
            return
        pipeline = wal_pipeline.open()
        message = f"run {run.run_id} failed: {_why(context)}{_BY_HAND if is_by_hand(run) else ''}"
        details = {"run_id": run.run_id, "job_name": run.job_name, "by_hand": is_by_hand(run)}
        seen = Observation(subject_of(run), message, details=details)
        pipeline.catalog.alerts.observe(AlertKind.RUN_FAILED, seen, pipeline.clock())

    return run_failure_sensor


def _settle_own(context: dg.SensorEvaluationContext, keys: Keys, pipeline: Pipeline) -> None:
    """Do what needs Dagster. Without the catalog it waits; what is left of the tick tells people so."""
    from wal_pipeline.commands.health.facts import note_sensor

    try:
        note_sensor(pipeline.catalog, pipeline.clock())
        resolve_run_failures(context.instance, keys, pipeline)
    except CatalogError as error:
        context.log.warning(error.message)


def resolve_run_failures(instance: dg.DagsterInstance, keys: Keys, pipeline: Pipeline) -> None:
    """Resolve the alerts of failed runs of which the same succeeded since, and old ones of runs started by hand."""
    for alert in pipeline.catalog.alerts.active():
        if alert.kind is not AlertKind.RUN_FAILED:
            continue
        is_over = alert_is_by_hand(alert.subject, alert.details) and (
            pipeline.clock() - alert.last_seen_at >= ALERT_LASTS
        )
        if is_over or _succeeded_since(instance, keys, alert):
            pipeline.catalog.alerts.resolve(alert.kind, alert.subject, pipeline.clock())


def spool_observation(keys: Keys, facts: "HealthFacts", pipeline: Pipeline) -> dg.AssetObservation:
    """Return the numbers of one look, which the UI plots."""
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
    """Return the cursor to keep, and whether an observation is due: something changed, or ten minutes passed."""
    seen = sorted(f"{kind.value} {one.subject}" for kind, found in report.observed.items() for one in found)
    last, at = _seen(cursor), report.facts.at
    outage = None if report.outage is None else report.outage.as_json()
    passed = last["at"] is None or abs(at - datetime.fromisoformat(last["at"])) >= OBSERVE_EVERY
    if report.facts.catalog_error is not None or (not passed and last["seen"] == seen):
        return json.dumps({**last, "outage": outage}), False
    return json.dumps({"at": at.isoformat(), "seen": seen, "outage": outage}), True


def _seen(cursor: str | None) -> dict[str, Any]:
    """Return what the tick before left."""
    return {"at": None, "seen": None, "outage": None, **(json.loads(cursor) if cursor else {})}


def _succeeded_since(instance: dg.DagsterInstance, keys: Keys, alert: Alert) -> bool:
    """Whether a run of the same ended well since: one of its job, or of the same assets and partitions."""
    since = alert.last_seen_at
    wanted = dg.RunsFilter(
        job_name=alert.details.get("job_name", alert.subject),
        statuses=[dg.DagsterRunStatus.SUCCESS],
        created_after=since - timedelta(days=1),
    )
    return any(
        record.end_time is not None and record.end_time > since.timestamp()
        for record in instance.get_run_records(wanted, limit=_MOST_RUNS)
        if subject_of(record.dagster_run) == alert.subject and is_of(record.dagster_run, keys)
    )


def _why(context: dg.RunFailureSensorContext) -> str:
    """Say why in one line: the step's own words where it failed on purpose, else the kind of error."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return f"{event.step_key}: {data.user_failure_data.description}"[:_MOST_TEXT]
        if data.error is not None:
            cause = data.error.cause or data.error
            return f"{event.step_key}: {' '.join(cause.message.split())}"[:_MOST_TEXT]
    return " ".join((context.failure_event.message or "no reason was given").split())[:_MOST_TEXT]
