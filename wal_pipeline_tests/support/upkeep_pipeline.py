"""Runs the real jobs and checks over an upkeep scene, with the scene's stores, catalog and clock."""

import asyncio
from typing import Any, ClassVar

import dagster as dg
from dagster._core.loader import LoadingContextForTest

from wal_pipeline.orchestration.assets.segments import build_segment_assets
from wal_pipeline.orchestration.assets.wal.spool import build_spool_asset
from wal_pipeline.orchestration.jobs.archive import build_archive_job
from wal_pipeline.orchestration.jobs.bad_copies import build_bad_copies_job
from wal_pipeline.orchestration.jobs.record import build_record_job
from wal_pipeline.orchestration.jobs.verify import build_verification_checks, build_verification_job
from wal_pipeline.orchestration.keys import VERIFY_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.sensors.record import build_record_sensor
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.segments import name_of, segment_bytes
from wal_pipeline_tests.support.upkeep_scene import CLUSTER, UpkeepScene

KEYS = Keys(CLUSTER)
STORES = ("r2", "b2")


class SceneResource(WalPipelineResource):
    """The resource with a scene's pipeline, one at a time."""

    pipeline: ClassVar[Pipeline]

    def open(self) -> Pipeline:
        return self.pipeline


def scene_resource(scene: UpkeepScene, **settings: str) -> SceneResource:
    """Return the resource for a scene."""
    SceneResource.pipeline = scene_pipeline(scene, **settings)
    return SceneResource()


def scene_pipeline(scene: UpkeepScene, **settings: str) -> Pipeline:
    """Return a pipeline of the settings, with the scene's stores and catalog."""
    spool = scene.folder / "spool"
    spool.mkdir(exist_ok=True)
    (settings_file := scene.folder / "settings.env").touch()
    given = {
        "PG_WAL_ARCHIVE_DIR": str(spool),
        "WAL_PIPELINE_STATE_DIR": str(scene.folder / "state"),
        "WAL_PIPELINE_RETENTION_DAYS": str(scene.rule.window.days),
        "WAL_PIPELINE_MIN_BASE_BACKUPS": str(scene.rule.minimum_backups),
    }
    pipeline = Pipeline(load_settings({**given, **settings}, settings_file), scene.clock)
    pipeline.__dict__.update(stores=dict(scene.stores), catalog=scene.catalog)
    return pipeline


def spool(scene: UpkeepScene, *numbers: int) -> None:
    folder = scene.folder / "spool"
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / name_of(number)).write_bytes(segment_bytes(number))


def archive(
    scene: UpkeepScene, instance: dg.DagsterInstance, *, linger_seconds: float = 0, **settings: str
) -> dg.ExecuteInProcessResult:
    return build_archive_job(KEYS).execute_in_process(
        instance=instance,
        resources={"wal_pipeline": scene_resource(scene, **settings)},
        run_config={"ops": {"archive_spool": {"config": {"linger_seconds": linger_seconds}}}},
        raise_on_error=False,
    )


def verify(scene: UpkeepScene, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    """Run the job verify_archive with these fields of its form."""
    checks = build_verification_checks(KEYS, STORES)
    definitions = dg.Definitions(
        assets=[build_spool_asset(KEYS), build_segment_assets(KEYS, STORES)],
        asset_checks=[checks],
        jobs=[build_verification_job(KEYS, checks)],
        resources={"wal_pipeline": scene_resource(scene)},
    )
    job = definitions.resolve_job_def(VERIFY_JOB)
    return job.execute_in_process(instance=instance, run_config={"ops": {"verification": {"config": config}}})


def verify_deep(scene: UpkeepScene, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Read every copy, and repair none."""
    return verify(scene, instance, deep=True, share=1.0, repair=False)


def evaluated(instance: dg.DagsterInstance, asset: dg.AssetKey, *names: str) -> list[bool]:
    """Return for each check whether the UI shows it as evaluated since the asset's newest materialization."""
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(asset, name) for name in names]
    )
    context = LoadingContextForTest(instance)
    by_name = {key.name: record for key, record in records.items()}
    return [name in by_name and asyncio.run(by_name[name].targets_latest_materialization(context)) for name in names]


def record(scene: UpkeepScene, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return build_record_job(KEYS).execute_in_process(
        instance=instance, resources={"wal_pipeline": scene_resource(scene)}
    )


def tick(
    scene: UpkeepScene, instance: dg.DagsterInstance, cursor: str | None
) -> tuple[list[str | None] | dg.SkipReason, str | None]:
    """Evaluate the record sensor once; return the names of the jobs that it starts, or why it starts none."""
    resources = {"wal_pipeline": scene_resource(scene)}
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
        result = build_record_sensor(KEYS, build_record_job(KEYS), build_bad_copies_job(KEYS))(context)
        asked = result if isinstance(result, dg.SkipReason) else [one.job_name for one in result]
        return asked, context.cursor


def mark_bad(scene: UpkeepScene, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return build_bad_copies_job(KEYS).execute_in_process(
        instance=instance, resources={"wal_pipeline": scene_resource(scene)}, raise_on_error=False
    )


def wal_materialized(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    return {store: instance.get_materialized_partitions(KEYS.wal_segment(store)) for store in STORES}


def fill(
    scene: UpkeepScene,
    instance: dg.DagsterInstance,
    asset: dg.AssetsDefinition,
    chosen: dg.AssetKey,
    partition: str,
    *checks: dg.AssetChecksDefinition,
) -> dg.ExecuteInProcessResult:
    """Materialize one partition of one store's asset, as the UI does."""
    definitions = dg.Definitions(
        assets=[build_spool_asset(KEYS), asset],
        asset_checks=list(checks),
        jobs=[dg.define_asset_job("fill", selection=dg.AssetSelection.assets(chosen))],
        resources={"wal_pipeline": scene_resource(scene)},
        executor=dg.in_process_executor,
    )
    job = definitions.resolve_job_def("fill")
    return job.execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)
