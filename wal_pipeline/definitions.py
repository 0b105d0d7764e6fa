"""Defines the code location for Dagster: its assets, checks, jobs, schedules and sensors."""

import gc
from datetime import timedelta

import dagster as dg

from wal_pipeline.orchestration.assets.accident_desk.clones import build_clones_asset
from wal_pipeline.orchestration.assets.accident_desk.found_transactions import build_found_asset
from wal_pipeline.orchestration.assets.accident_desk.rescued_tables import build_rescued_asset
from wal_pipeline.orchestration.assets.archive_checks import build_archive_checks, build_check_job, with_freshness
from wal_pipeline.orchestration.assets.base_backups import build_backup_assets
from wal_pipeline.orchestration.assets.cost import build_cost_asset, build_cost_job
from wal_pipeline.orchestration.assets.drill import build_drill_asset, build_drill_job
from wal_pipeline.orchestration.assets.open_alerts import build_alerts_asset
from wal_pipeline.orchestration.assets.owners import with_owners
from wal_pipeline.orchestration.assets.recovery_window import build_window_asset
from wal_pipeline.orchestration.assets.segments import build_segment_assets
from wal_pipeline.orchestration.assets.wal.spool import build_spool_asset
from wal_pipeline.orchestration.assets.wal.tail import build_tail_assets
from wal_pipeline.orchestration.jobs.archive import build_archive_job
from wal_pipeline.orchestration.jobs.backup import build_backup_job
from wal_pipeline.orchestration.jobs.bad_copies import build_bad_copies_job
from wal_pipeline.orchestration.jobs.clone.job import build_clone_job
from wal_pipeline.orchestration.jobs.expire import build_retention_job
from wal_pipeline.orchestration.jobs.find.job import build_find_job
from wal_pipeline.orchestration.jobs.pause import build_pause_job, build_resume_job
from wal_pipeline.orchestration.jobs.record import build_record_job
from wal_pipeline.orchestration.jobs.relations import build_relations_job
from wal_pipeline.orchestration.jobs.rescue.job import build_rescue_job
from wal_pipeline.orchestration.jobs.restore.job import build_restore_job
from wal_pipeline.orchestration.jobs.ship import build_ship_job
from wal_pipeline.orchestration.jobs.verify import build_verification_checks, build_verification_job
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.schedules import build_schedules
from wal_pipeline.orchestration.sensors.early_backup import build_early_backup_sensor
from wal_pipeline.orchestration.sensors.health import build_health_sensor
from wal_pipeline.orchestration.sensors.links import LinkedSensor
from wal_pipeline.orchestration.sensors.record import build_record_sensor
from wal_pipeline.orchestration.sensors.run_failure import build_run_failure_sensor
from wal_pipeline.orchestration.sensors.ship import build_ship_sensor
from wal_pipeline.orchestration.sensors.spool import build_spool_sensor
from wal_pipeline.settings import Settings, load_settings

# The modules loaded by now stay as long as the process. Each full collection would look through all their objects,
# which takes 0.1 s of a run's start.
gc.freeze()


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the cluster that the settings name. Opens no connection."""
    settings = load_settings()
    keys = Keys(settings.cluster)
    archive_wal = build_archive_job(keys)
    ship_wal = build_ship_job(keys)
    take_base_backup = build_backup_job(keys)
    drill = build_drill_job(keys)
    tails = settings.stores if settings.ship_interval_seconds is not None else ()
    checks = build_archive_checks(keys, settings.stores, tails=bool(tails))
    check_archive = build_check_job(keys, checks)
    report_cost = build_cost_job(keys)
    record_archive = build_record_job(keys)
    report_bad_copies = build_bad_copies_job(keys)
    expire_archive = build_retention_job(keys)
    verification = build_verification_checks(keys, settings.stores)
    verify_archive = build_verification_job(keys, verification)
    ship_sensor = LinkedSensor.of(
        build_ship_sensor(keys, ship_wal, interval_seconds=settings.sensor_interval_seconds),
        [keys.wal_tail(store) for store in settings.stores],
    )
    wal, base_backups = (list(map(key, settings.stores)) for key in (keys.wal_segment, keys.base_backup))
    return dg.Definitions(
        asset_checks=[checks, verification],
        assets=with_owners(_assets(keys, settings), settings.owners),
        jobs=[
            archive_wal,
            take_base_backup,
            drill,
            check_archive,
            report_cost,
            record_archive,
            report_bad_copies,
            build_relations_job(keys),
            build_restore_job(keys),
            build_find_job(keys),
            build_clone_job(keys),
            build_rescue_job(keys),
            build_pause_job(keys),
            build_resume_job(keys),
            expire_archive,
            verify_archive,
            *([ship_wal] if tails else []),
        ],
        schedules=build_schedules(settings),
        sensors=[
            LinkedSensor.of(
                build_spool_sensor(keys, archive_wal, interval_seconds=settings.sensor_interval_seconds),
                [keys.spool, *wal],
            ),
            LinkedSensor.of(build_record_sensor(keys, record_archive, report_bad_copies), [*wal, *base_backups]),
            build_health_sensor(keys, interval_seconds=settings.health_interval_seconds, tails=tails),
            build_run_failure_sensor(keys),
            *([ship_sensor] if tails else []),
            *([build_early_backup_sensor(keys, take_base_backup)] if settings.rto_early_base_backup else []),
        ],
        resources={"wal_pipeline": WalPipelineResource()},
        executor=dg.in_process_executor,  # a process for each step would add seconds to each in a backfill
    )


def _assets(keys: Keys, settings: Settings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets in the order of a file's way."""
    stores, ships = settings.stores, settings.ship_interval_seconds is not None
    return [
        build_spool_asset(keys),
        build_segment_assets(keys, stores),
        *([build_tail_assets(keys, stores)] if ships else []),
        with_freshness(build_backup_assets(keys, stores), timedelta(hours=settings.base_backup_max_age_hours)),
        build_window_asset(keys, stores, tails=ships),
        build_alerts_asset(keys),
        with_freshness(build_drill_asset(keys, stores), timedelta(days=settings.drill_max_age_days)),
        build_found_asset(keys, stores),
        build_clones_asset(keys, stores),
        build_rescued_asset(keys, stores),
        build_cost_asset(keys, stores),
    ]
