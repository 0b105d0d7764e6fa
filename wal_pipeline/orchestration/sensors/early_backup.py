"""Defines the sensor that takes the next base backup earlier, where a restore would take longer than its objective."""

from typing import Final

import dagster as dg

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.pause import current_pause
from wal_pipeline.errors import CatalogError
from wal_pipeline.orchestration.jobs.backup import INCREMENTAL_OR_FULL
from wal_pipeline.orchestration.keys import BACKUP_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.in_flight import run_in_flight

EARLY_BACKUP_SENSOR: Final = "early_base_backup_sensor"
_INTERVAL_SECONDS: Final = 300


def build_early_backup_sensor(keys: Keys, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor. It is there only where WAL_PIPELINE_RTO_EARLY_BASE_BACKUP is on."""

    @dg.sensor(
        name=EARLY_BACKUP_SENSOR,
        job=job,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags=keys.tags,
        description=keys.described(
            "Takes the next base backup before its schedule where a restore is predicted to take longer than "
            "WAL_PIPELINE_RTO_OBJECTIVE, and a new base backup would mend that. At most one a day for the newest base "
            "backup, so that one that fails is not tried all day."
        ),
    )
    def early_base_backup_sensor(
        context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        pipeline = wal_pipeline.open()
        try:
            wanted = _wanted(pipeline.catalog)
        except CatalogError as error:
            return dg.SkipReason(f"how long a restore takes is not known: {error.message}")
        if isinstance(wanted, str):
            return dg.SkipReason(wanted)
        run = run_in_flight(context.instance, BACKUP_JOB, keys.tags)
        if run is not None:
            return dg.SkipReason(f"run {run.run_id} takes a base backup")
        newest, message = wanted
        context.log.info(f"the next base backup is taken now: {message}")
        return dg.RunRequest(
            run_key=f"early/{newest}/{pipeline.clock():%Y%m%d}", run_config=INCREMENTAL_OR_FULL, tags=keys.tags
        )

    return early_base_backup_sensor


def _wanted(catalog: Catalog) -> tuple[str, str] | str:
    """Return the newest base backup and the alert's message; as text, why no base backup is wanted.

    Raises: CatalogError.
    """
    from wal_pipeline.commands.health.rto_rules import wants_base_backup
    from wal_pipeline.commands.health.windows import newest_id

    now = catalog.now()
    paused = current_pause(catalog, now)
    if paused is not None:
        return f"no base backup would become restorable: {paused.describe()}"
    slow = [alert for alert in catalog.alerts.active() if alert.kind is AlertKind.RESTORE_SLOW]
    helped = [alert for alert in slow if wants_base_backup(alert.details)]
    if not helped:
        return (
            "no new base backup would make a restore fast enough" if slow else "a restore takes no longer than it may"
        )
    newest = newest_id({one.backup_id for one in catalog.base_backups.all()}, now)
    return newest or "none", helped[0].message
