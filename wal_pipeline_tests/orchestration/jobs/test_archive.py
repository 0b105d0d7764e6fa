"""Tests the archiving run in Dagster: its records, the checks that it answers at its end, and its failures."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.orchestration.assets.closing_events import Stored, closing_events
from wal_pipeline.orchestration.keys import CONTENT_CHECK, NAMES_CHECK
from wal_pipeline.spool import Spool
from wal_pipeline_tests.support.archive_scene import fail, nothing
from wal_pipeline_tests.support.damage import damage
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_pipeline import (
    KEYS,
    STORES,
    archive,
    evaluated,
    scene_resource,
    spool,
    verify_deep,
)
from wal_pipeline_tests.support.upkeep_scene import UpkeepScene

FACTS = ("no_gap", "every_file", "newest_fresh")
VERIFICATION = (NAMES_CHECK, CONTENT_CHECK)


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    made = UpkeepScene(tmp_path)
    made.run_for(4)
    return made


WINDOW = ("can_be_restored_r2", "can_be_restored_b2", "no_gap_inside_r2", "no_gap_inside_b2")


def last(instance: dg.DagsterInstance, store: str, name: str) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(KEYS.wal_segment(store), name)
    [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.evaluation is not None
    return record.evaluation


def test_the_checks_are_answered_by_the_run(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The run answers the checks from the records, and those of a verification only where there was one."""
    spool(scene, 5, 6)
    assert archive(scene, instance).success
    for store in STORES:
        assert evaluated(instance, KEYS.wal_segment(store), *FACTS, *VERIFICATION) == [True] * 3 + [False] * 2
        assert last(instance, store, "every_file").description == f"6 of 6 files are verified on {store}"
    assert evaluated(instance, KEYS.recovery_window, *WINDOW) == [True] * 4


def test_a_verification_counts_on(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A verdict stays for the files that it read, and the files of later runs, each read back, are added up."""
    verify_deep(scene, instance)
    for number in (5, 6):
        spool(scene, number)
        assert archive(scene, instance).success
    for store in STORES:
        assert evaluated(instance, KEYS.wal_segment(store), *FACTS, *VERIFICATION) == [True] * 5
        found = last(instance, store, CONTENT_CHECK)
        assert found.passed
        assert found.description == ("all is as it should be; copies stored and verified since that verification: 2")
        assert (found.metadata["stored_since"].value, found.metadata["copies"].value) == (2, 5)


def test_a_run_hides_no_damage(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A fault that a verification found stays until the next verification."""
    damage(scene, "b2", name_of(3), "bit turned")
    verify_deep(scene, instance)
    spool(scene, 5)
    assert archive(scene, instance).success
    assert {store: last(instance, store, CONTENT_CHECK).passed for store in STORES} == {"r2": True, "b2": False}
    said = last(instance, "b2", CONTENT_CHECK).description
    assert said is not None
    assert said.startswith("1 copies are missing or damaged; first: b2: object 'main/")


def test_what_was_not_read_back_is_not_claimed(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """Without reading back the content check gets no verdict, because only sizes are known."""
    verify_deep(scene, instance)
    spool(scene, 5)
    assert archive(scene, instance, WAL_PIPELINE_READ_BACK="no").success
    assert evaluated(instance, KEYS.wal_segment("r2"), *VERIFICATION) == [True, False]


def test_a_run_that_stored_nothing_answers_no_check_of_a_store(
    scene: UpkeepScene, instance: dg.DagsterInstance
) -> None:
    """A store without new copies gets no verdict."""
    verify_deep(scene, instance)
    done = archive(scene, instance)
    assert done.success
    assert {one.asset_key for one in done.get_asset_check_evaluations()} == {KEYS.recovery_window}


def test_a_base_backup_counts_on(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """After a base backup only its own assets and the windows get verdicts."""
    verify_deep(scene, instance)
    pipeline = scene_resource(scene).open()
    stored = Stored(base_backups={"b2": 1})
    events = list(closing_events(KEYS, pipeline, instance, stored, logging.getLogger("test")))  # type: ignore[arg-type]
    told = {(one.asset_key, one.check_name) for one in events if isinstance(one, dg.AssetCheckEvaluation)}
    assert told == {
        (KEYS.base_backup("b2"), "newest_fresh"),
        (KEYS.base_backup("b2"), NAMES_CHECK),
        (KEYS.base_backup("b2"), CONTENT_CHECK),
        *((KEYS.recovery_window, name) for name in WINDOW),
    }


def test_a_store_that_stays_down_fails_the_run(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The run fails after all other stores were served, with the store's own error."""
    spool(scene, 5)
    scene.stores["b2"].before = fail("b2")
    done = archive(scene, instance)
    assert not done.success
    [failure] = [event for event in done.all_events if event.event_type_value == "STEP_FAILURE"]
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    assert told.description == ("b2: cannot list: it is down; the spool keeps every file, and the next run tries again")
    assert told.metadata["b2"].value == "b2: cannot list: it is down"
    assert name_of(5) in instance.get_materialized_partitions(KEYS.wal_segment("r2"))


class TickingScene(UpkeepScene):
    """A scene whose clock runs, so that a store is tried again after its wait."""

    def clock(self) -> datetime:
        return self.now + timedelta(seconds=time.monotonic())


def test_a_store_that_recovers_within_the_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """In the end every file is on every store, and the run succeeds."""
    scene = TickingScene(tmp_path)
    scene.run_for(4)
    spool(scene, 5, 6)
    failures = [0]

    def once(call: str, key: str) -> None:
        failures[0] += 1
        scene.stores["b2"].before = nothing
        fail("b2")(call, key)

    scene.stores["b2"].before = once
    done = archive(scene, instance, linger_seconds=1, WAL_PIPELINE_MAX_BACKOFF_SECONDS="0.1")
    assert failures == [1]
    assert done.success
    for store in STORES:
        assert {name_of(5), name_of(6)} <= instance.get_materialized_partitions(KEYS.wal_segment(store))


def after_its_first_file(scene: UpkeepScene, during: Callable[[], None], seconds: float = 30.0) -> threading.Thread:
    """Call ``during`` once the run at work has emptied the spool."""

    def wait() -> None:
        deadline = time.monotonic() + seconds
        while any((scene.folder / "spool").glob("0*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        during()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_run_that_lingers_does_not_leave_the_recovery_window_as_it_was(
    scene: UpkeepScene, instance: dg.DagsterInstance
) -> None:
    """A run may wait for hours: the window of its first files is reported when the spool is empty, not at its end."""
    spool(scene, 5)
    seen: list[int] = []

    def look_and_end() -> None:
        deadline = time.monotonic() + 10
        while not seen and time.monotonic() < deadline:
            found = instance.get_latest_materialization_event(KEYS.recovery_window)
            seen.extend([1] if found is not None else [])
            time.sleep(0.05)
        with Spool(scene.folder / "spool", scene.folder / "quarantine", 60.0).wanted():
            time.sleep(2)

    thread = after_its_first_file(scene, look_and_end)
    begun = time.monotonic()
    assert archive(scene, instance, linger_seconds=60).success
    thread.join()
    assert seen == [1]
    assert time.monotonic() - begun < 40


def test_a_run_that_only_waits_for_files_is_no_failure_when_it_is_told_to_end(
    scene: UpkeepScene, instance: dg.DagsterInstance
) -> None:
    """Restarting the services must open no alert: nearly always a run is in flight, and it has done its work."""
    spool(scene, 5)
    thread = after_its_first_file(scene, lambda: os.kill(os.getpid(), signal.SIGTERM))
    done = archive(scene, instance, linger_seconds=60)
    thread.join()
    assert done.success
    assert name_of(5) in instance.get_materialized_partitions(KEYS.wal_segment("b2"))
