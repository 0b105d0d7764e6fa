"""Tests that spool sensors stop waiting in their ticks where they would take every thread of the daemon."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData

from testbed.dagster_instance import PROJECT
from wal_pipeline.orchestration.sensors.waiting import Threads, count_threads

NOW = 1_800_000_000.0


def tick(instance: dg.DagsterInstance, cluster: str, sensor: str = "spool_sensor", *, ago: float = 5.0) -> None:
    """Record that a sensor of a cluster's code location ticked, as the daemon does."""
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(cluster), "__repository__")
    data = SensorInstigatorData(min_interval=5, last_tick_start_timestamp=NOW - ago)
    state = InstigatorState(
        origin.get_instigator_origin(sensor), InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, data
    )
    instance.add_instigator_state(state)


def instance_of(folder: Path, sensors: str) -> dg.DagsterInstance:
    """Return an instance with these settings for its sensors."""
    (folder / "dagster.yaml").write_text(f"sensors: {sensors}\n" if sensors else "")
    return dg.DagsterInstance.from_config(str(folder))


@pytest.mark.parametrize(
    ("sensors", "clusters", "suffice"),
    [
        ("{use_threads: true, num_workers: 4}", 3, True),
        ("{use_threads: true, num_workers: 4}", 4, False),
        ("", 1, True),
        ("", 2, False),
    ],
)
def test_one_thread_stays_for_the_sensors_that_do_not_wait(
    tmp_path: Path, sensors: str, clusters: int, suffice: bool
) -> None:
    """Without threads one cluster alone may wait: so it was with Dagster's own defaults."""
    with instance_of(tmp_path, sensors) as instance:
        for number in range(clusters):
            tick(instance, f"cluster{number}")
            tick(instance, f"cluster{number}", "health_sensor")
        found = count_threads(instance, NOW)
    assert (found.waiting, found.suffice) == (clusters, suffice)


def test_a_code_location_that_is_gone_takes_no_thread(tmp_path: Path) -> None:
    """Dagster keeps its sensors' states, whose last ticks are old."""
    with instance_of(tmp_path, "{use_threads: true, num_workers: 2}") as instance:
        tick(instance, "here")
        tick(instance, "gone", ago=3600)
        assert count_threads(instance, NOW) == Threads(1, 2)


def test_the_tick_says_what_to_set() -> None:
    """The text names the number that fits."""
    assert Threads(8, 8).describe() == (
        "did not wait for files: 8 spool sensors share 8 threads; set 'sensors: use_threads: true, num_workers: 9' or "
        "more in dagster.yaml"
    )


@pytest.mark.parametrize("name", ["dagster.yaml", "deploy/dagster.postgres.yaml", "deploy/dagster-workers.yaml"])
def test_our_own_file_is_enough_for_a_large_fleet(name: str) -> None:
    """A thread that has nothing to evaluate is never made."""
    assert "sensors:\n  use_threads: true\n  num_workers: 64\n" in (PROJECT / name).read_text()
