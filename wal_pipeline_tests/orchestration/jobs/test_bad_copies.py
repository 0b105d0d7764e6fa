"""Tests that copies which are known to be missing or damaged do not stay green in Dagster's partitions."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.orchestration.assets.base_backups import build_backup_assets
from wal_pipeline.orchestration.assets.segments import build_segment_assets
from wal_pipeline.orchestration.jobs.purge_records import purge_runs
from wal_pipeline.orchestration.runs.last_evaluation import last_evaluation
from wal_pipeline.orchestration.sensors import record as record_sensor
from wal_pipeline.orchestration.sensors.run_failure import build_run_failure_sensor
from wal_pipeline_tests.support.dagster_graphql import dagster_ui
from wal_pipeline_tests.support.damage import damage
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_pipeline import (
    KEYS,
    STORES,
    fill,
    mark_bad,
    record,
    scene_resource,
    tick,
    verify_deep,
)
from wal_pipeline_tests.support.upkeep_scene import DAY, UpkeepScene

WAL = KEYS.wal_segment("b2")
NAMES = [name_of(number) for number in range(1, 7)]


@pytest.fixture(autouse=True)
def second_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sensor take its second look without a wait."""
    monkeypatch.setattr(record_sensor, "_LOOK_AGAIN_SECONDS", 0)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose storage is SQLite, as in an installation: GraphQL asks no other."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as made:
        yield made


@pytest.fixture
def scene(tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> UpkeepScene:
    """Six segments and two base backups, all of them on both stores and green in Dagster."""
    monkeypatch.chdir(tmp_path)
    made = UpkeepScene(tmp_path)
    made.run_for(6, backup_every=3)
    record(made, instance)
    return made


def shown(instance: dg.DagsterInstance, key: dg.AssetKey = WAL) -> dict[str, list[str]]:
    with dagster_ui(instance) as ui:
        return ui.partitions(key)


def verdict(instance: dg.DagsterInstance, key: dg.AssetKey, name: str) -> dg.AssetCheckEvaluation:
    found = last_evaluation(instance, dg.AssetCheckKey(key, name))
    assert found is not None
    assert found.evaluation is not None
    return found.evaluation


def follow(scene: UpkeepScene, instance: dg.DagsterInstance) -> list[str | None]:
    """Let a day pass, tick the record sensor, and run the jobs that it asks for."""
    scene.now += DAY
    asked, _ = tick(scene, instance, None)
    assert not isinstance(asked, dg.SkipReason), asked
    for name in asked:
        done = (record if name == "record_archive" else mark_bad)(scene, instance)
        assert done.success is (name == "record_archive")
    return asked


def test_what_the_command_line_finds_missing_does_not_stay_green(
    scene: UpkeepScene, instance: dg.DagsterInstance
) -> None:
    """'verify' finds a missing copy: its partition fails, 'Failed and missing' repairs it, and it is green again."""
    assert shown(instance) == {"materialized": NAMES, "failed": [], "missing": []}
    damage(scene, "b2", name_of(3), "deleted")
    scene.verify()
    assert follow(scene, instance) == ["record_archive", "report_bad_copies"]

    after = shown(instance)
    assert after["failed"] == [name_of(3)]
    assert after["materialized"] == [name for name in NAMES if name != name_of(3)]
    assert shown(instance, KEYS.wal_segment("r2"))["failed"] == []

    [chosen] = [*after["failed"], *after["missing"]]
    assert fill(scene, instance, build_segment_assets(KEYS, STORES), WAL, chosen).success
    assert shown(instance) == {"materialized": NAMES, "failed": [], "missing": []}
    assert scene.recorded("b2")[name_of(3)] is CopyStatus.VERIFIED


def test_a_verdict_of_the_command_line_is_that_of_the_check(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The check says what 'verify' found last, also when that was better than what Dagster's own run had found."""
    damage(scene, "b2", name_of(3), "bit turned")
    verify_deep(scene, instance)
    assert not verdict(instance, WAL, "content").passed
    scene.now += DAY
    scene.verify(share=1.0, repair=True)
    follow(scene, instance)
    for name in ("names_and_sizes", "content"):
        assert verdict(instance, WAL, name).passed
        assert verdict(instance, WAL, name).description == "all is as it should be"
    damage(scene, "b2", name_of(4), "deleted")
    scene.verify()
    follow(scene, instance)
    failed = verdict(instance, WAL, "names_and_sizes")
    assert failed.description == f"1 copies are missing or damaged; first: b2: '{name_of(4)}' is not there"
    assert not failed.passed
    assert verdict(instance, WAL, "content").passed  # nobody has read content since
    assert verdict(instance, KEYS.wal_segment("r2"), "names_and_sizes").passed


def test_a_repair_by_the_command_line_makes_it_green(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A partition that was marked as failed gets its record back after 'verify --repair'."""
    damage(scene, "b2", name_of(3), "deleted")
    scene.verify()
    follow(scene, instance)
    scene.verify(repair=True)
    assert follow(scene, instance) == ["record_archive"]
    assert shown(instance) == {"materialized": NAMES, "failed": [], "missing": []}


def test_what_a_run_of_dagster_finds_does_not_stay_green(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The verification job marks nothing itself; the sensor follows it, and the run names the copy and the way out."""
    damage(scene, "b2", name_of(5), "bit turned")
    verify_deep(scene, instance)
    assert tick(scene, instance, None)[0] == ["report_bad_copies"]
    done = mark_bad(scene, instance)
    [failure] = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description is not None
    assert failure.user_failure_data.description.startswith("b2: object 'main/")
    assert "HINT: Open the asset, choose Materialize and 'Failed and missing'" in failure.user_failure_data.description
    assert shown(instance)["failed"] == [name_of(5)]


def test_what_a_backfill_finds_damaged_does_not_stay_green(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A backfill of r2 reads b2's copy, which is damaged: then b2's partition is not green either."""
    damage(scene, "b2", name_of(3), "bit turned")
    damage(scene, "r2", name_of(3), "deleted")
    done = fill(scene, instance, build_segment_assets(KEYS, STORES), KEYS.wal_segment("r2"), name_of(3))
    assert not done.success
    assert scene.recorded("b2")[name_of(3)] is CopyStatus.DAMAGED
    follow(scene, instance)
    assert shown(instance)["failed"] == [name_of(3)]


def test_a_copy_whose_record_was_lost_does_not_stay_green(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """'catalog rebuild' forgets a copy that is gone; the next verification records that it is missing."""
    damage(scene, "b2", name_of(3), "deleted")
    scene.catalog.files.remove_copy(scene_identifier(scene), [name_of(3)], "b2")
    scene.verify()
    assert scene.recorded("b2")[name_of(3)] is CopyStatus.MISSING
    follow(scene, instance)
    assert shown(instance)["failed"] == [name_of(3)]


def test_a_base_backup_that_is_gone_does_not_stay_green(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The same holds for base backups."""
    backup_id = scene.catalog.base_backups.all()[-1].backup_id
    for key in scene.keys("b2"):
        if backup_id in key:
            scene.stores["b2"].inner.delete(key)
    scene.verify()
    follow(scene, instance)
    base = KEYS.base_backup("b2")
    assert shown(instance, base)["failed"] == [backup_id]
    assert fill(scene, instance, build_backup_assets(KEYS, STORES), base, backup_id).success
    assert shown(instance, base)["failed"] == []


def test_a_mark_that_dagster_lost_comes_back(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """Where the failed run was removed, the partition would be green again. The sensor looks once a day."""
    damage(scene, "b2", name_of(3), "deleted")
    scene.verify()
    follow(scene, instance)
    scene.now += DAY
    asked, cursor = tick(scene, instance, None)
    assert isinstance(asked, dg.SkipReason)
    for run in instance.get_runs(dg.RunsFilter(job_name="report_bad_copies")):
        instance.delete_run(run.run_id)
    instance.wipe_asset_cached_status([WAL])
    assert shown(instance)["failed"] == []
    assert isinstance(tick(scene, instance, cursor)[0], dg.SkipReason)
    scene.now += DAY
    assert tick(scene, instance, cursor)[0] == ["report_bad_copies"]


def test_the_run_that_marks_stays_as_long_as_its_partition(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The purge of old runs would make a bad copy green again."""
    damage(scene, "b2", name_of(3), "deleted")
    scene.verify()
    follow(scene, instance)
    later = datetime.now(UTC) + timedelta(days=1)
    purge_runs(instance, KEYS, later, at_most=1000)
    assert len(instance.get_runs(dg.RunsFilter(job_name="report_bad_copies"))) == 1
    instance.delete_dynamic_partition(KEYS.wal_partitions_name, name_of(3))
    purge_runs(instance, KEYS, later, at_most=1000)
    assert instance.get_runs(dg.RunsFilter(job_name="report_bad_copies")) == []


def test_the_run_opens_no_second_alert(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The verification opened an alert for the copy; the run that marks it failed on purpose."""
    damage(scene, "b2", name_of(3), "deleted")
    scene.verify()
    failed = mark_bad(scene, instance)
    resources = {"wal_pipeline": scene_resource(scene)}
    with dg.build_run_status_sensor_context(
        "run_failure_sensor", failed.get_run_failure_event(), instance, failed.dagster_run, resources=resources
    ) as context:
        build_run_failure_sensor(KEYS)(context.for_run_failure())
    assert [alert.kind for alert in scene.catalog.alerts.active()] == [AlertKind.DAMAGE]


def test_nothing_is_marked_where_the_catalog_was_lost(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """An empty catalog has found nothing, so no copy is bad by it."""
    scene.catalog.files.remove_copy(scene_identifier(scene), NAMES, "b2")
    assert isinstance(tick(scene, instance, None)[0], dg.SkipReason)
    assert mark_bad(scene, instance).success
    assert shown(instance)["failed"] == []


def scene_identifier(scene: UpkeepScene) -> int:
    return scene.catalog.system_identifiers.known()[-1]
