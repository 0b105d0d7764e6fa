"""Tests to whom the launcher for warm workers hands a run, and that Redis gets no secret."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.instance import InstanceRef
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._serdes import pack_value
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG, DAGSTER_CELERY_TASK_ID_TAG

from testbed.ports import LOOPBACK, free_port
from testbed.warm_workers import INSTANCE_FILE
from wal_pipeline.orchestration.jobs.archive import build_archive_job
from wal_pipeline.orchestration.keys import CLUSTER_TAG, Keys, warm_queue
from wal_pipeline.orchestration.warm_launcher import WarmRunLauncher, queue_of

PASSWORD = "a-password-of-redis"


@dg.job
def some_job() -> None:
    """Do nothing."""


@dg.job
def archive_wal() -> None:
    """Do nothing, under the name of the archiving run."""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An instance with the file of deploy/, whose Redis does not listen."""
    monkeypatch.setenv("DAGSTER_REDIS_URL", f"redis://:{PASSWORD}@{LOOPBACK}:{free_port()}/0")
    shutil.copy(INSTANCE_FILE, tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


class ColdLauncher:
    """Replaces the default launcher, which needs a code server."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def launch_run(self, context: LaunchRunContext) -> None:
        """Record the run."""
        self.launched.append(context.dagster_run.run_id)


def start(instance: Any, job: dg.JobDefinition, tags: dict[str, str]) -> tuple[dg.DagsterRun, ColdLauncher]:
    """Launch a run with these tags."""
    cold = ColdLauncher()
    launcher = instance.run_launcher
    assert isinstance(launcher, WarmRunLauncher)
    launcher._cold = cold  # type: ignore[assignment]
    run = instance.create_run_for_job(job, tags=tags)
    launcher.launch_run(LaunchRunContext(run, None))
    return run, cold


def messages(instance: Any, run: dg.DagsterRun) -> list[str]:
    """The texts of the run's log."""
    return [entry.message for entry in instance.all_logs(run.run_id)]


def test_a_run_without_a_queue_is_started_as_ever(instance: Any) -> None:
    """Base backups and drills do not run in a warm worker."""
    run, cold = start(instance, some_job, {CLUSTER_TAG: "main"})
    assert (cold.launched, messages(instance, run)) == ([run.run_id], [])


def test_without_redis_the_run_is_started_as_ever(instance: Any) -> None:
    """The run's log says so, without the URL and its password."""
    run, cold = start(instance, archive_wal, {CLUSTER_TAG: "main"})
    assert cold.launched == [run.run_id]
    assert messages(instance, run) == [
        "[WarmRunLauncher] Redis cannot be reached (OperationalError). The run starts without a warm worker."
    ]
    assert DAGSTER_CELERY_TASK_ID_TAG not in instance.get_run_by_id(run.run_id).tags


def test_a_redis_that_is_gone_makes_no_run_a_failed_one(instance: Any) -> None:
    """The spool's lock then shows whether the run is alive."""
    run = instance.create_run_for_job(some_job, tags={DAGSTER_CELERY_TASK_ID_TAG: "a task"})
    assert instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING


def test_redis_is_told_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instance in a run's message has the names of variables, not their values."""
    postgres = (INSTANCE_FILE.parent / "dagster.postgres.yaml").read_text()
    storage = postgres[postgres.index("storage:") : postgres.index("telemetry:")]
    (tmp_path / "dagster.yaml").write_text(storage + INSTANCE_FILE.read_text())
    names = ["DAGSTER_REDIS_URL", *(f"DAGSTER_PG_{name}" for name in ("HOST", "PORT", "DB", "USERNAME", "PASSWORD"))]
    for name in names:
        monkeypatch.setenv(name, f"{PASSWORD} of {name}")
    message = json.dumps(pack_value(InstanceRef.from_dir(str(tmp_path))))
    assert [name for name in names if name not in message] == []
    assert PASSWORD not in message


def test_archiving_runs_have_the_queue_of_their_cluster(instance: Any) -> None:
    """A worker takes only its own cluster's runs, because only that spool is beside it."""
    run = instance.create_run_for_job(archive_wal, tags=Keys("orders").tags)
    assert queue_of(run) == warm_queue("orders") == "archive_orders"


def test_a_run_has_a_tag_of_celery_only_on_its_way_to_celery(instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's launcher finds its queue by the tag, and the records of the run, which the UI shows, have none."""
    handed: list[dg.DagsterRun] = []
    monkeypatch.setattr(CeleryRunLauncher, "launch_run", lambda _self, context: handed.append(context.dagster_run))
    monkeypatch.setattr(WarmRunLauncher, "_worker_answers", lambda _self, _queue: True)
    run, cold = start(instance, archive_wal, Keys("orders").tags)
    assert cold.launched == []
    assert [one.tags.get(DAGSTER_CELERY_QUEUE_TAG) for one in handed] == ["archive_orders"]
    assert DAGSTER_CELERY_QUEUE_TAG not in instance.get_run_by_id(run.run_id).tags
    assert DAGSTER_CELERY_QUEUE_TAG not in build_archive_job(Keys("orders")).tags
