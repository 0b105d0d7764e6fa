"""Defines the sensor that looks at everything each minute, updates the alerts and sends them."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from wal_pipeline.errors import CatalogError
from wal_pipeline.orchestration.assets.minute_events import Event, Shown, minute_events
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.thin_events import thin_events
from wal_pipeline.orchestration.sensors.run_failure import resolve_run_failures
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.health.watch import HealthReport


def build_health_sensor(keys: Keys, *, interval_seconds: int, tails: Sequence[str] = ()) -> dg.SensorDefinition:
    """Return the sensor of one cluster's health. It starts no run. ``tails``: the stores to which WAL is shipped."""
    shown_each_minute = [*keys.shown_each_minute, *map(keys.wal_tail, tails)]

    @dg.sensor(
        name="health_sensor",
        asset_selection=dg.AssetSelection.assets(*shown_each_minute),
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags=keys.tags,
        description=keys.described(
            "Looks at pg_stat_archiver, the spool, the disks, the stores' records, base backups, drills and gaps. "
            "Opens, refreshes and resolves alerts, and sends them. Brings the assets of the spool, the recovery "
            "window, the open alerts and the tails up to date."
        ),
    )
    def health_sensor(context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource) -> dg.SensorResult:
        from wal_pipeline.commands.alerts.catalog_outage import CatalogOutage
        from wal_pipeline.commands.health.watch import watch_health
        from wal_pipeline.wiring.health import destinations, fact_sources, health_limits

        pipeline = wal_pipeline.open()
        _settle_own(context, keys, pipeline)
        _end_clones(context, pipeline)
        report = watch_health(
            fact_sources(pipeline, need_catalog=False),
            health_limits(pipeline),
            lambda: destinations(pipeline),
            cluster=keys.cluster,
            outage=CatalogOutage.from_json(_seen(context.cursor)["outage"]),
        )
        for name, reason in report.delivery.failures.items():
            context.log.warning(f"destination {name} did not take the notification: {reason}")
        events, shown = _show(context, keys, pipeline, report, Shown.from_json(_seen(context.cursor)["shown"]))
        outage = None if report.outage is None else report.outage.as_json()
        cursor = json.dumps({"outage": outage, "shown": shown.as_json()})
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


def _end_clones(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> None:
    """End the clones whose time is over and whose keepers did not live to see it."""
    settings = pipeline.settings
    if not settings.folder_of_clones(settings.state_folder).is_dir():
        return  # most hosts have none, and need not load what ends them
    from wal_pipeline.errors import RestoreError
    from wal_pipeline.wiring.clone import clear_clones

    try:
        for words in clear_clones(pipeline, adopt=False):
            context.log.warning(words)
    except RestoreError as error:
        context.log.warning(error.message)


def _show(
    context: dg.SensorEvaluationContext, keys: Keys, pipeline: Pipeline, report: "HealthReport", shown: Shown
) -> tuple[list[Event], Shown]:
    """Return what the UI is to show of this look. Without the catalog it keeps what it shows."""
    if report.facts.catalog_error is not None:
        return [], shown
    try:
        events, after = minute_events(context.instance, keys, pipeline, report.facts, shown)
    except CatalogError as error:
        context.log.warning(error.message)
        return [], shown
    before = report.facts.at - timedelta(days=pipeline.settings.dagster_retention_days)
    tails = [keys.wal_tail(one.store) for one in report.facts.shipping.tails]
    thin_events(context.instance, [*keys.shown_each_minute, *tails], report.facts.at, before)
    return events, after


def _seen(cursor: str | None) -> dict[str, Any]:
    """Return the cursor of the tick before, as a mapping."""
    return {"shown": None, "outage": None, **(json.loads(cursor) if cursor else {})}
