"""Dagster's way in: everything that the code location defines."""

import dagster as dg

from wal_pipeline.orchestration.archive_job import build_archive_job
from wal_pipeline.orchestration.backup_assets import build_backup_assets
from wal_pipeline.orchestration.backup_job import build_backup_job, build_backup_schedule
from wal_pipeline.orchestration.drill_asset import build_drill_asset, build_drill_job, build_drill_schedule
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.segment_assets import build_segment_assets, build_spool_asset
from wal_pipeline.orchestration.spool_sensor import build_spool_sensor
from wal_pipeline.orchestration.window_asset import build_window_asset
from wal_pipeline.settings import load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the cluster that the settings name. Opens no connection."""
    settings = load_settings()
    keys = Keys(settings.cluster)
    archive_wal = build_archive_job(keys)
    take_base_backup = build_backup_job(keys)
    drill = build_drill_job(keys)
    return dg.Definitions(
        assets=[
            build_spool_asset(keys),
            build_segment_assets(keys, settings.stores),
            build_backup_assets(keys, settings.stores),
            build_drill_asset(keys, settings.stores),
            build_window_asset(keys, settings.stores),
        ],
        jobs=[archive_wal, take_base_backup, drill],
        schedules=[
            build_backup_schedule(take_base_backup, settings.base_backup_cron),
            build_drill_schedule(drill, settings.drill_cron),
        ],
        sensors=[build_spool_sensor(keys, archive_wal, interval_seconds=settings.sensor_interval_seconds)],
        resources={"wal_pipeline": WalPipelineResource()},
    )
