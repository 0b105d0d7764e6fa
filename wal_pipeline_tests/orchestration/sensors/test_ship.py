"""Tests when the sensor of shipping starts a run: one at a time, not while paused, and with waits after failures."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.commands.pause import pause
from wal_pipeline.commands.shipper_lock import ShipLock
from wal_pipeline.orchestration.jobs.ship import build_ship_job, handover_seconds
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.sensors.ship import build_ship_sensor, wait_seconds
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import HealthScene

JOB = build_ship_job(KEYS)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose storage is SQLite, as in an installation: one in memory knows no times of runs."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as made:
        yield made


def tick(instance: dg.DagsterInstance, resource: WalPipelineResource) -> str | None:
    """Evaluate the sensor once. Return why it started nothing; None where it asked for a run."""
    sensor = build_ship_sensor(KEYS, JOB, interval_seconds=5)
    with dg.build_sensor_context(instance=instance, resources={"wal_pipeline": resource}) as context:
        result = sensor(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result.skip_message if isinstance(result, dg.SkipReason) else None


def test_a_run_is_started_where_none_is(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """And not a second one beside it."""
    assert tick(instance, resource) is None
    run = instance.create_run_for_job(JOB, status=dg.DagsterRunStatus.STARTED, tags=KEYS.tags)
    assert tick(instance, resource) == f"run {run.run_id} is shipping"


def test_nothing_is_started_while_archiving_is_paused(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """The tick says by whom and until when."""
    pause(scene.catalog, scene.now, length=timedelta(hours=1), reason="", by="anna")
    assert str(tick(instance, resource)).startswith("nothing is shipped: archiving is paused until ")


def test_nothing_is_started_beside_the_command(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """It holds the lock, and the tick says so."""
    with ShipLock(scene.folder / "state", "main").held():
        assert tick(instance, resource) == (
            "another process ships the open segment: 'wal-pipeline ship' holds its lock"
        )
    assert tick(instance, resource) is None


def test_a_run_of_another_cluster_does_not_count(
    scene: HealthScene, instance: dg.DagsterInstance, resource: WalPipelineResource
) -> None:
    """Many clusters share one Dagster, and their jobs have the same name."""
    other = {"wal_pipeline/cluster": "orders"}
    instance.create_run_for_job(JOB, status=dg.DagsterRunStatus.STARTED, tags=other)
    assert tick(instance, resource) is None


@dataclass
class Ended:
    """The times of a run, as Dagster keeps them, in seconds since 1970."""

    start_time: float | None
    end_time: float | None


@dataclass
class Past:
    """Runs one after the other; each lasted so many seconds, and the last one ended at 1000."""

    lasted: tuple[float, ...]
    runs: list[Ended] = field(default_factory=list)

    def newest_first(self) -> list[Ended]:
        end = 1000.0
        for seconds in reversed(self.lasted):
            self.runs.append(Ended(end - seconds, end))
            end -= seconds + 1
        return self.runs


@pytest.mark.parametrize(
    ("lasted", "expected"),
    [
        ((), 0.0),
        ((7200.0,), 0.0),
        ((7200.0, 1.0), 10.0),
        ((1.0, 7200.0), 0.0),
        ((1.0, 1.0, 1.0), 40.0),
        ((0.0,) * 10, 300.0),
    ],
)
def test_runs_that_end_at_once_make_no_storm(lasted: tuple[float, ...], expected: float) -> None:
    """Each doubles the wait, up to the longest; a run that lasted ends the series."""
    assert wait_seconds(Past(lasted).newest_first(), 300.0, 1000.0) == expected


def test_a_wait_ends() -> None:
    """It counts from the end of the last run; a clock that was set back ends it too."""
    past = Past((1.0, 1.0)).newest_first()
    assert [wait_seconds(past, 300.0, now) for now in (1000.0, 1015.0, 1021.0, 900.0)] == [20.0, 5.0, -1.0, 0.0]


def test_the_next_run_has_time_to_start() -> None:
    """A minute before the end of a run that lasts for hours; half of a short one."""
    assert [handover_seconds(most) for most in (7200.0, 60.0)] == [60.0, 30.0]
