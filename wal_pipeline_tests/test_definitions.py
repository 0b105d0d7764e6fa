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
    "check_archive",
    "report_cost",
    "record_archive",
    "report_bad_copies",
    "restore_cluster",
    "pause_archiving",
    "resume_archiving",
    "expire_archive",
    "verify_archive",
}
SCHEDULES = {
    "base_backup_schedule",
    "recovery_drill_schedule",
    "check_archive_schedule",
    "cost_schedule",
    "expire_archive_schedule",
    "verify_archive_schedule",
    "deep_verify_archive_schedule",
}
SENSORS = {"spool_sensor", "record_sensor", "health_sensor", "run_failure_sensor"}


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
        "main/cost",
    }


def test_another_cluster_has_other_keys(repository: dg.RepositoryDefinition, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two code locations in one workspace share no asset key."""
    monkeypatch.setenv("WAL_PIPELINE_CLUSTER", "orders")
    others = defs().get_repository_def().asset_graph.get_all_asset_keys()
    assert others
    assert not others & repository.asset_graph.get_all_asset_keys()
