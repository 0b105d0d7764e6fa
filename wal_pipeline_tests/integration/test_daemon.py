"""Tests that the real daemon archives a real PostgreSQL's WAL to two stores, whatever is killed or stopped."""

import os
import signal
from collections.abc import Iterator
from itertools import pairwise

import dagster as dg
import pytest

from testbed.postgres_install import PostgresInstall
from testbed.tls import TlsFiles
from wal_pipeline.orchestration.sensors.lost_run import process_lives
from wal_pipeline_tests.support.daemon_scene import STORES, DaemonScene, start_daemon_scene

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, postgres18: PostgresInstall, tls_files: TlsFiles
) -> Iterator[DaemonScene]:
    """One running pipeline for the module; its tests stop and kill parts of it."""
    with start_daemon_scene(postgres18, tmp_path_factory.mktemp("daemon"), tls_files) as scene:
        yield scene


def lives(scene: DaemonScene, run_id: str) -> bool:
    """Whether the code server knows the run's process."""
    with dg.DagsterInstance.from_config(str(scene.dagster.home)) as instance:
        run = instance.get_run_by_id(run_id)
    assert run is not None
    return process_lives(run)


def test_new_segments_are_archived_by_runs_of_the_sensor(scene: DaemonScene) -> None:
    """Runs with the sensor's tag store each file on both stores and record it as a partition of each."""
    names = scene.write_segments(5)
    scene.wait_archived(names)
    scene.wait_recorded(names)
    runs = {run.run_id for run in scene.sensor_runs()}
    for store in STORES:
        recorded = scene.materialized_by(store)
        assert all(len(recorded[name]) == 1 and recorded[name][0] in runs for name in names)


def test_a_store_that_is_down_holds_back_nobody(scene: DaemonScene) -> None:
    """With r2 down b2 gets every file and the spool keeps every file; r2 catches up when it is back."""
    scene.pair.r2.stop()
    names = scene.write_segments(4)
    scene.wait(lambda: set(names) <= scene.stored("b2").keys.keys())
    later = scene.write_segments(2)
    scene.wait(lambda: set(later) <= scene.stored("b2").keys.keys())
    assert scene.spooled() >= {*names, *later}
    scene.pair.r2.start()
    scene.wait_archived(names + later)
    scene.wait(lambda: scene.sensor_runs()[0].status == "SUCCESS")  # every store has all files
    scene.wait_recorded(names + later)
    assert all(len(scene.materialized_by("b2")[name]) == 1 for name in names + later)


def test_a_killed_run_is_followed_by_one_that_finishes(scene: DaemonScene) -> None:
    """After a SIGKILL Dagster marks the run as failed by itself, and the next run does the rest."""
    names = scene.write_segments(15)
    pid = scene.wait_archiving()
    scene.wait(lambda: names[2] in scene.stored("b2").keys)
    os.kill(pid, signal.SIGSTOP)  # at any point: it must not end before the kill
    names += scene.write_segments(3)
    newest = scene.sensor_runs()[0].run_id
    assert lives(scene, newest)
    scene.wait(lambda: scene.spooled() >= set(names[-3:]))
    os.kill(pid, signal.SIGKILL)
    scene.wait(lambda: not lives(scene, newest))
    scene.wait_archived(names)
    assert {run.run_id: run.status for run in scene.sensor_runs()}[newest] == "FAILURE"
    assert scene.sensor_runs()[0].run_id != newest
    scene.dagster.launch_job("record_archive")  # as its sensor does within a minute
    scene.wait_recorded(names)


@pytest.mark.left_out
def test_a_machine_crash_leaves_no_run_that_holds_up_the_others(scene: DaemonScene) -> None:
    """Code server, runs and daemon are killed together; the sensor still marks the run as failed."""
    names = scene.write_segments(15)
    scene.wait_archiving()
    newest = scene.sensor_runs()[0]
    scene.dagster.code_server.kill()
    scene.dagster.daemon.kill()
    assert scene.archiving_pid() is None
    assert newest.run_id == scene.sensor_runs()[0].run_id
    assert scene.sensor_runs()[0].status == "STARTED"
    assert not lives(scene, newest.run_id)
    scene.dagster.start_code_server()
    assert not lives(scene, newest.run_id)
    scene.dagster.start_daemon()
    scene.wait_archived(names)
    assert {run.run_id: run.status for run in scene.sensor_runs()}[newest.run_id] == "FAILURE"


def test_a_killed_daemon_takes_up_files_and_backfills_when_it_is_back(scene: DaemonScene) -> None:
    """It archives the waiting files, and a backfill of partitions of b2 copies only those, to b2 only, in one run."""
    *lost, not_chosen = scene.write_segments(4)
    scene.wait_archived([*lost, not_chosen])
    scene.wait_recorded([*lost, not_chosen])
    scene.dagster.daemon.kill()
    before = {store: scene.objects(store) for store in STORES}
    scene.hide("b2", [*lost, not_chosen])
    backfill_id = scene.backfill("b2", lost)
    names = scene.write_segments(3)
    scene.dagster.start_daemon()
    scene.wait_archived(names)
    scene.wait(lambda: any(run.ended for run in scene.runs(**{"dagster/backfill": backfill_id})))
    scene.wait_archived(lost)

    runs = scene.runs(**{"dagster/backfill": backfill_id})
    assert [run.status for run in runs] == ["SUCCESS"]
    assert all(scene.materialized_by("b2")[name][0] == runs[0].run_id for name in lost)
    assert all(scene.materialized_by("r2")[name][0] != runs[0].run_id for name in lost)
    after = {store: scene.objects(store) for store in STORES}
    assert not_chosen not in after["b2"]
    unchanged = {
        store: {name for name, at in before[store].items() if after[store].get(name) == at} for store in STORES
    }
    assert unchanged["r2"] == before["r2"].keys()
    assert unchanged["b2"] >= before["b2"].keys() - {*lost, not_chosen}


def test_archiving_runs_never_overlap(scene: DaemonScene) -> None:
    """In all tests of this module there was one archiving run at a time."""
    runs = sorted(scene.sensor_runs(), key=lambda run: run.started or 0)
    assert len(runs) >= 3
    for earlier, later in pairwise(runs):
        assert earlier.ended is not None
        assert later.started is not None
        assert earlier.ended <= later.started


def test_a_catalog_that_is_lost_in_mid_work_is_begun_again(scene: DaemonScene) -> None:
    """Where the catalog is removed during a run, every file is still archived, and a rebuild restores the records."""
    names = scene.write_segments(10)
    scene.wait_archiving()
    for path in scene.state.glob("catalog.sqlite*"):
        path.unlink()
    names += scene.write_segments(3)
    scene.wait_archived(names)
    scene.command("catalog", "rebuild")
    for store in STORES:
        assert scene.recorded(store) == scene.stored(store).keys.keys()


@pytest.mark.left_out
def test_a_dagster_home_that_is_lost_in_mid_work_is_filled_again(scene: DaemonScene) -> None:
    """Where DAGSTER_HOME is removed during a run, a restart archives every file and shows every copy again."""
    names = scene.write_segments(10)
    scene.wait_archiving()
    scene.dagster.lose_home()
    names += scene.write_segments(2)
    scene.dagster.stop()
    scene.dagster.lose_home()
    scene.dagster.start()
    scene.wait_archived(names)
    for store in STORES:
        scene.wait_recorded(list(scene.stored(store).keys), [store])
