"""Tests the job expire_archive: it removes partitions without a copy, and a bounded number of old runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.orchestration.jobs.expire import build_retention_job
from wal_pipeline.orchestration.jobs.purge_records import location_of, purge_checks, purge_runs, purge_ticks
from wal_pipeline_tests.support.segments import name_of, segment_bytes
from wal_pipeline_tests.support.upkeep_pipeline import KEYS, scene_resource
from wal_pipeline_tests.support.upkeep_scene import UpkeepScene

WAL = KEYS.wal_partitions_name
BASE = KEYS.base_backup_partitions_name


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    return UpkeepScene(tmp_path)


def run(
    scene: UpkeepScene, instance: dg.DagsterInstance, *, raises: bool = True, **settings: str
) -> dg.ExecuteInProcessResult:
    return build_retention_job(KEYS).execute_in_process(
        instance=instance, resources={"wal_pipeline": scene_resource(scene, **settings)}, raise_on_error=raises
    )


def test_partitions_go_with_the_last_copy(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A file on a store or in the spool keeps its partition."""
    backups = scene.run_for(24)
    instance.add_dynamic_partitions(WAL, [name_of(number) for number in range(1, 26)])
    instance.add_dynamic_partitions(BASE, [one.backup_id for one in backups])
    resource = scene_resource(scene)
    (scene.folder / "spool" / name_of(25)).write_bytes(segment_bytes(25))
    assert resource.open().settings.retention_days == 10
    done = run(scene, instance)
    assert done.success
    assert list(instance.get_dynamic_partitions(WAL)) == [name_of(number) for number in range(13, 26)]
    assert set(instance.get_dynamic_partitions(BASE)) == {one.backup_id for one in backups[3:]}
    [event] = [one for one in done.all_events if one.event_type_value == "STEP_OUTPUT"]
    metadata = event.step_output_data.metadata
    assert (metadata["partitions_removed"].value, metadata["r2_files_removed"].value) == (12 + 3, 12)


def test_while_a_store_is_silent_every_partition_stays(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A silent store's files are unknown, so every partition stays and the run fails."""
    scene.run_for(24)
    instance.add_dynamic_partitions(WAL, [name_of(number) for number in range(1, 25)])

    def refuse(_call: str, _key: str) -> None:
        raise StoreUnavailableError("b2", "no answer")

    scene.stores["b2"].before = refuse
    done = run(scene, instance, raises=False)
    assert not done.success
    assert len(instance.get_dynamic_partitions(WAL)) == 24
    [failure] = [one for one in done.all_events if one.event_type_value == "STEP_FAILURE"]
    description = failure.step_failure_data.user_failure_data.description
    assert description == "1 problems, first: b2 is left out: b2: no answer"


def test_without_the_spool_at_hand_every_partition_stays(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A file in the spool has a partition and no copy yet, so without the spool every partition stays."""
    scene.run_for(24)
    instance.add_dynamic_partitions(WAL, [name_of(1)])
    assert run(scene, instance, PG_WAL_ARCHIVE_DIR="").success
    assert list(instance.get_dynamic_partitions(WAL)) == [name_of(1)]


@dg.op
def record(context: dg.OpExecutionContext) -> None:
    """Materialize the partitions in the run's tags."""
    for name in context.run.tags.get("files", "").split():
        context.log_event(dg.AssetMaterialization(KEYS.wal_segment("r2"), partition=name))
    if "drill" in context.run.tags:
        context.log_event(dg.AssetMaterialization(KEYS.recovery_drill))


@dg.job
def recording() -> None:
    record()


def past_run(instance: dg.DagsterInstance, cluster: str = "main", **tags: str) -> str:
    given = {"wal_pipeline/cluster": cluster, **tags}
    return recording.execute_in_process(instance=instance, tags=given).run_id


def test_old_runs_go_unless_what_they_recorded_is_still_there(instance: dg.DagsterInstance) -> None:
    """A run stays while it has a materialization of an existing partition, or an asset's latest one."""
    instance.add_dynamic_partitions(WAL, [name_of(2)])
    gone = past_run(instance, files=name_of(1))
    needed = past_run(instance, files=f"{name_of(1)} {name_of(2)}")
    earlier, latest = past_run(instance, drill="yes"), past_run(instance, drill="yes")
    idle = past_run(instance)
    other = past_run(instance, cluster="other")
    assert purge_runs(instance, KEYS, datetime.now(UTC) - timedelta(days=1), at_most=9) == 0
    assert purge_runs(instance, KEYS, datetime.now(UTC) + timedelta(days=1), at_most=9) == 3
    left = {one.run_id for one in instance.get_runs()}
    assert left == {needed, latest, other}
    assert {gone, earlier, idle}.isdisjoint(left)


def test_a_purge_is_bounded_and_begins_with_the_oldest(instance: dg.DagsterInstance) -> None:
    """A large backlog is removed over some days, the oldest runs first."""
    runs = [past_run(instance) for _ in range(5)]
    assert purge_runs(instance, KEYS, datetime.now(UTC) + timedelta(days=1), at_most=2) == 2
    assert [one.run_id for one in instance.get_runs(ascending=True)] == runs[2:]
    assert purge_runs(instance, KEYS, datetime.now(UTC) + timedelta(days=1), at_most=0) == 0


def add_ticks(instance: dg.DagsterInstance, location: str, now: datetime) -> RemoteInstigatorOrigin:
    """Give a code location a schedule with ticks of 100 days, 99 days and one day ago."""
    code = InProcessCodeLocationOrigin(LoadableTargetOrigin(executable_path="python"), location_name=location)
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(code, "all"), "daily")
    kind, selector_id = InstigatorType.SCHEDULE, origin.get_selector().get_id()
    instance.add_instigator_state(
        InstigatorState(origin, kind, InstigatorStatus.RUNNING, ScheduleInstigatorData("0 0 * * *"))
    )
    for days in (100, 99, 1):
        at = (now - timedelta(days=days)).timestamp()
        tick = TickData(origin.get_id(), "daily", kind, TickStatus.SUCCESS, at, selector_id=selector_id, run_ids=[])
        instance.create_tick(tick)
    return origin


def test_old_ticks_go() -> None:
    """Older ticks of this cluster's code location are removed, and those of no other location."""
    now = datetime.now(UTC)
    with dg.instance_for_test() as instance:
        mine, other = (add_ticks(instance, location, now) for location in ("main", "other"))
        run = dg.DagsterRun("expire_archive", remote_job_origin=mine.repository_origin.get_job_origin("expire_archive"))
        purge_ticks(instance, location_of(dg.DagsterRun("expire_archive")), now - timedelta(days=90))
        assert ticks(instance, mine) == ticks(instance, other) == [1, 99, 100]
        purge_ticks(instance, location_of(run), now - timedelta(days=90))
        assert (ticks(instance, mine), ticks(instance, other)) == ([1], [1, 99, 100])


def ticks(instance: dg.DagsterInstance, origin: RemoteInstigatorOrigin) -> list[int]:
    """Return the ages in days of the remaining ticks."""
    found = instance.get_ticks(origin.get_id(), origin.get_selector().get_id())
    return [round((datetime.now(UTC).timestamp() - tick.timestamp) / 86400) for tick in found]


def test_old_check_results_go(instance: dg.DagsterInstance) -> None:
    """The newest result of each check stays, and so do those of other clusters."""
    now = datetime.now(UTC)
    for asset in (KEYS.spool, KEYS.recovery_window, dg.AssetKey(["main_other", "spool"])):
        for number in range(3):
            metadata = {"number": number}
            instance.report_runless_asset_event(dg.AssetCheckEvaluation(asset, "some", passed=True, metadata=metadata))
    assert purge_checks(instance, KEYS, now - timedelta(days=1)) == 0
    assert purge_checks(instance, KEYS, now + timedelta(days=1)) == 2 * 2
    for asset, left in ((KEYS.spool, 1), (KEYS.recovery_window, 1), (dg.AssetKey(["main_other", "spool"]), 3)):
        check = dg.AssetCheckKey(asset, "some")
        found = instance.event_log_storage.get_asset_check_execution_history(check, limit=10)
        assert len(found) == left
        assert found[0].evaluation is not None
        assert found[0].evaluation.metadata["number"].value == 2


def test_a_doubtful_clock_removes_nothing(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """Nothing is removed from the stores or from Dagster, and the failed run's HINT says how to continue."""
    scene.run_for(24)
    instance.add_dynamic_partitions(WAL, [name_of(number) for number in range(1, 30)])
    scene.now += timedelta(days=365)
    before = scene.keys("r2")
    done = run(scene, instance, raises=False)
    [failure] = done.get_step_failure_events()
    assert "HINT: Set this host's clock right;" in str(failure.step_failure_data.user_failure_data.description)
    assert scene.keys("r2") == before
    assert len(instance.get_dynamic_partitions(WAL)) == 29


def test_damage_removes_nothing_and_fails_the_run(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The failure names the damaged copy and the way out; the partitions of what is there stay."""
    scene.run_for(24)
    instance.add_dynamic_partitions(WAL, [name_of(number) for number in range(1, 25)])
    for store in ("r2", "b2"):
        scene.stores[store].inner.delete(scene.key_of(store, name_of(20)))
    before = scene.keys("r2")
    done = run(scene, instance, raises=False)
    [failure] = done.get_step_failure_events()
    told = str(failure.step_failure_data.user_failure_data.description)
    assert "r2: nothing expires while 1 copy on it may be needed and cannot be used" in told
    assert "'wal-pipeline verify --repair'" in told
    assert scene.keys("r2") == before
    assert len(instance.get_dynamic_partitions(WAL)) == 24
