"""Tests that the record sensor and its job write the records that a killed archiving run did not write."""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.commands.pause import pause
from wal_pipeline.orchestration.jobs.archive import build_archive_job
from wal_pipeline.orchestration.jobs.unrecorded import find_unrecorded
from wal_pipeline.orchestration.runs import event_batches as run_records
from wal_pipeline.orchestration.sensors import record as record_sensor
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_pipeline import (
    KEYS,
    STORES,
    archive,
    record,
    scene_resource,
    spool,
    tick,
    wal_materialized,
)
from wal_pipeline_tests.support.upkeep_scene import DAY, UpkeepScene

NAMES = {name_of(number) for number in (5, 6, 7)}


def archive_and_die(folder: Path, home: Path) -> None:
    """Archive, linger, and die when the first records are about to be written."""

    def die(*_args: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()

    run_records.store_entries = die
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        build_archive_job(KEYS).execute_in_process(
            instance=instance,
            resources={"wal_pipeline": scene_resource(UpkeepScene(folder))},
            run_config={"ops": {"archive_spool": {"config": {"linger_seconds": 30}}}},
        )


def test_records_are_shown_while_the_run_lingers(tmp_path: Path) -> None:
    """A file's record is written a second later, also when no other file follows."""
    scene, home = UpkeepScene(tmp_path / "scene"), tmp_path / "home"
    scene.run_for(4)
    spool(scene, 5)
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance, ThreadPoolExecutor(1) as pool:
        running = pool.submit(archive, scene, instance, linger_seconds=20)
        while not all(name_of(5) in shown for shown in wal_materialized(instance).values()):
            assert not running.done()
            time.sleep(0.1)
        assert not running.done()
        pause(scene.catalog, scene.now, length=DAY, reason="to end the run", by="a test")
        assert running.result(60).success


def test_records_that_a_killed_run_did_not_write_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster does not show a killed run's archived files, until the record job has run."""
    monkeypatch.setattr(record_sensor, "_LOOK_AGAIN_SECONDS", 0)
    scene, home = UpkeepScene(tmp_path / "scene"), tmp_path / "home"
    scene.run_for(4)
    spool(scene, 5, 6, 7)
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        record(scene, instance)
        cursor = tick(scene, instance, None)[1]
        child = multiprocessing.get_context("spawn").Process(target=archive_and_die, args=(scene.folder, home))
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
        assert not [path for path in (scene.folder / "spool").iterdir() if path.name in NAMES]
        assert all(not NAMES & shown for shown in wal_materialized(instance).values())

        scene.now += DAY
        asked, _ = tick(scene, instance, cursor)

        assert asked == ["record_archive"]
        assert record(scene, instance).success
        assert all(shown >= NAMES for shown in wal_materialized(instance).values())
        assert find_unrecorded(instance, KEYS, scene.catalog, STORES, scene.now).count == 0
