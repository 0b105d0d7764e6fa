"""Tests when the next base backup is taken before its schedule."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.commands.health.rto_rules import HELPS
from wal_pipeline.commands.pause import pause
from wal_pipeline.orchestration.jobs.backup import build_backup_job
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.sensors.early_backup import build_early_backup_sensor
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import HealthScene

JOB = build_backup_job(KEYS)
SLOW = "a restore from r2 would take 2 h, expected at most 60 min"


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    """An instance of Dagster."""
    return dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))


def tick(instance: dg.DagsterInstance, resource: WalPipelineResource) -> dg.RunRequest | str | None:
    """Evaluate the sensor once. Return its request, or why it made none."""
    sensor = build_early_backup_sensor(KEYS, JOB)
    with dg.build_sensor_context(instance=instance, resources={"wal_pipeline": resource}) as context:
        result = sensor(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result.skip_message if isinstance(result, dg.SkipReason) else result


def tell(scene: HealthScene, *, helps: bool) -> None:
    """Open the alert."""
    scene.catalog.alerts.observe(AlertKind.RESTORE_SLOW, Observation("r2", SLOW, details={HELPS: helps}), scene.now)


def test_nothing_is_taken_while_a_restore_is_fast_enough(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """Other alerts do not count."""
    scene.catalog.alerts.observe(AlertKind.DRILL_OLD, Observation("r2", "old", details={HELPS: True}), scene.now)
    assert tick(instance, resource) == "a restore takes no longer than it may"


def test_nothing_is_taken_where_it_would_not_help(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """The files alone take too long: one base backup after the other would change nothing."""
    tell(scene, helps=False)
    assert tick(instance, resource) == "no new base backup would make a restore fast enough"


def test_one_is_taken_where_it_helps(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """Incremental where that can be; a second tick of the day asks for the same run, which Dagster starts once."""
    tell(scene, helps=True)
    first, second = tick(instance, resource), tick(instance, resource)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_config == {"ops": {"stream_base_backup": {"config": {"incremental": True, "or_full": True}}}}
    newest = max(one.backup_id for one in scene.catalog.base_backups.all())
    assert first.run_key == second.run_key
    assert str(first.run_key).startswith(f"early/{newest}/")


def test_a_new_base_backup_that_does_not_help_is_followed_by_another(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """The run's key is that of the newest base backup: much WAL since is a new reason."""
    tell(scene, helps=True)
    first = tick(instance, resource)
    scene.back_up(9, age=timedelta(minutes=1))
    second = tick(instance, resource)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_key != second.run_key


def test_none_beside_one_that_runs(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """The scheduled one may be at work."""
    tell(scene, helps=True)
    run = instance.create_run_for_job(JOB, status=dg.DagsterRunStatus.STARTED, tags=KEYS.tags)
    assert tick(instance, resource) == f"run {run.run_id} takes a base backup"


def test_none_while_archiving_is_paused(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """It would not become restorable."""
    tell(scene, helps=True)
    pause(scene.catalog, scene.now, length=timedelta(days=1), reason="", by="anna")
    assert str(tick(instance, resource)).startswith("no base backup would become restorable: archiving is paused")
