"""Tests that the definitions load with the fewest settings, and that schedules and sensors are on."""

import os
from pathlib import Path

import dagster as dg
import pytest

from testbed.dagster_instance import clean_environment
from wal_pipeline.definitions import defs

JOBS = {
    "archive_wal",
    "take_base_backup",
    "recovery_drill",
    "keep_relations",
    "check_archive",
    "report_cost",
    "record_archive",
    "report_bad_copies",
    "restore_cluster",
    "find_transactions",
    "clone_cluster",
    "rescue_tables",
    "pause_archiving",
    "resume_archiving",
    "expire_archive",
    "verify_archive",
    "ship_wal",
}
SCHEDULES = {
    "base_backup_schedule",
    "incremental_base_backup_schedule",
    "recovery_drill_schedule",
    "keep_relations_schedule",
    "check_archive_schedule",
    "cost_schedule",
    "expire_archive_schedule",
    "verify_archive_schedule",
    "deep_verify_archive_schedule",
}
SENSORS = {"spool_sensor", "record_sensor", "health_sensor", "run_failure_sensor", "ship_sensor"}
TAILS = {"main/wal_tail/r2", "main/wal_tail/b2"}


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dg.RepositoryDefinition:
    """The definitions where no setting is made."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return defs().get_repository_def()


def test_every_job_is_there(repository: dg.RepositoryDefinition) -> None:
    """The code location has our jobs, and Dagster's own job for assets."""
    assert {job.name for job in repository.get_all_jobs()} - {"__ASSET_JOB"} == JOBS


def test_every_schedule_is_on(repository: dg.RepositoryDefinition) -> None:
    """Every schedule is on by default, and all are in UTC, as their settings say."""
    found = {one.name: (one.default_status, one.execution_timezone) for one in repository.schedule_defs}
    assert found == dict.fromkeys(SCHEDULES, (dg.DefaultScheduleStatus.RUNNING, "UTC"))


def test_every_sensor_is_on(repository: dg.RepositoryDefinition) -> None:
    """Every sensor is on by default."""
    found = {one.name: one.default_status for one in repository.sensor_defs}
    assert found == dict.fromkeys(SENSORS, dg.DefaultSensorStatus.RUNNING)


def test_the_assets_begin_with_the_clusters_name(repository: dg.RepositoryDefinition) -> None:
    """Many clusters share one UI, so every key begins with the cluster's name."""
    keys = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert keys == {
        "main/spool",
        "main/wal_segment/r2",
        "main/wal_segment/b2",
        "main/base_backup/r2",
        "main/base_backup/b2",
        "main/recovery_window",
        "main/recovery_drill",
        "main/open_alerts",
        "main/found_transactions",
        "main/clones",
        "main/rescued_tables",
        "main/cost",
        *TAILS,
    }


def test_another_cluster_has_other_keys(repository: dg.RepositoryDefinition, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two code locations in one workspace share no asset key."""
    monkeypatch.setenv("WAL_PIPELINE_CLUSTER", "orders")
    others = defs().get_repository_def().asset_graph.get_all_asset_keys()
    assert others
    assert not others & repository.asset_graph.get_all_asset_keys()


def test_nothing_of_the_accident_desk_is_done_by_a_click_on_an_asset(repository: dg.RepositoryDefinition) -> None:
    """'Materialize all' in the group must not clone a cluster: only a job's form fills these assets."""
    for name in ("found_transactions", "clones", "rescued_tables"):
        asset = repository.asset_graph.get(dg.AssetKey(["main", name]))
        assert (asset.is_executable, asset.group_name) == (False, "main_3_recovery")
        assert asset.parent_keys


def test_the_tails_end_the_recovery_window(repository: dg.RepositoryDefinition) -> None:
    """Lineage: the tails come from the server itself, and the recovery window ends with them."""
    graph = repository.asset_graph
    tails = {dg.AssetKey(name.split("/")) for name in TAILS}
    assert tails <= graph.get(dg.AssetKey(["main", "recovery_window"])).parent_keys
    assert not any(graph.get(tail).parent_keys for tail in tails)
    assert {graph.get(tail).group_name for tail in tails} == {"main_1_wal"}


def test_where_shipping_is_off_nothing_of_it_is_shown(
    repository: dg.RepositoryDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job, sensor, asset or check of shipping is there, because nobody would keep it up to date."""
    monkeypatch.setenv("WAL_PIPELINE_SHIP_INTERVAL_SECONDS", "off")
    other = defs().get_repository_def()
    jobs = {job.name for job in other.get_all_jobs()} - {"__ASSET_JOB"}
    assert jobs == JOBS - {"ship_wal"}
    assert {one.name for one in other.sensor_defs} == SENSORS - {"ship_sensor"}
    ours, theirs = (one.asset_graph.get_all_asset_keys() for one in (repository, other))
    assert {key.to_user_string() for key in ours - theirs} == TAILS
    checks = repository.asset_graph.asset_check_keys - other.asset_graph.asset_check_keys
    assert {(key.asset_key.to_user_string(), key.name) for key in checks} == {(tail, "on_time") for tail in TAILS}
