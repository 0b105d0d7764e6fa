"""Tests that the record sensor starts one run at a time while Dagster lacks records, and compares seldom."""

import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.orchestration.jobs.record import build_record_job
from wal_pipeline.orchestration.sensors import record as record_sensor
from wal_pipeline_tests.support.upkeep_pipeline import KEYS, record, tick
from wal_pipeline_tests.support.upkeep_scene import DAY, UpkeepScene


@pytest.fixture(autouse=True)
def second_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sensor take its second look without a wait."""
    monkeypatch.setattr(record_sensor, "_LOOK_AGAIN_SECONDS", 0)


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    """Six segments and two base backups that Dagster does not know."""
    made = UpkeepScene(tmp_path)
    made.run_for(6, backup_every=3)
    return made


def test_the_sensor_starts_a_run_while_anything_is_missing(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The sensor starts no run when all is recorded, and then compares only the catalog's totals."""
    asked, cursor = tick(scene, instance, None)
    assert asked == ["record_archive"]
    record(scene, instance)
    scene.now += DAY
    asked, cursor = tick(scene, instance, cursor)
    assert asked == dg.SkipReason("Dagster shows what the catalog knows")
    asked, cursor = tick(scene, instance, cursor)
    assert asked == dg.SkipReason("the catalog has not changed since all of it was recorded")
    scene.archive(7, scene.now)
    scene.now += DAY
    assert tick(scene, instance, cursor)[0] == ["record_archive"]


def test_the_sensor_compares_seldom_where_that_takes_long(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The sensor waits between comparisons, but not because of a clock that was set back."""
    begun = scene.now.timestamp()
    cursor = json.dumps({"complete": None, "at": begun - 50, "wait_seconds": 100})
    assert tick(scene, instance, cursor)[0] == dg.SkipReason("compared a moment ago")
    for at in (begun - 100, begun + 50):
        cursor = json.dumps({"complete": None, "at": at, "wait_seconds": 100})
        assert tick(scene, instance, cursor)[0] == ["record_archive"]


def test_one_run_at_a_time(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The sensor waits for a run that is under way."""
    instance.create_run_for_job(
        build_record_job(KEYS), status=dg.DagsterRunStatus.STARTED, tags={"wal_pipeline/cluster": KEYS.cluster}
    )
    scene.now = datetime.now(UTC)
    asked, _ = tick(scene, instance, None)
    assert asked == dg.SkipReason("a run is recording")
    scene.now += DAY  # such a run was lost
    assert tick(scene, instance, None)[0] == ["record_archive"]
