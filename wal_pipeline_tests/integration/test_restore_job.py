"""Tests the restore as a Dagster job, which plans first and restores like the command."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.orchestration.jobs.restore import build_restore_job
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.restore_history import History

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def lost(postgres18: PostgresInstall, s3_pair: S3Pair) -> Iterator[History]:
    """A small cluster with a base backup and some WAL after it, lost."""
    with History.begin(postgres18, s3_pair) as history:
        history.back_up()
        history.mark("first")
        history.end()
        history.lose()
        yield history


@pytest.fixture
def environment(lost: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """A code location that has only the stores' settings."""
    for name, value in {**lost.environment, "PGBINDIR": str(lost.install.bin_folder)}.items():
        monkeypatch.setenv(name, value)


def restore(pgdata: Path, **config: object) -> dg.ExecuteInProcessResult:
    """Run the job in this process."""
    job = build_restore_job(Keys("main"))
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            instance=instance,
            resources={"wal_pipeline": WalPipelineResource()},
            run_config={"ops": {"restore": {"config": {"pgdata": str(pgdata), **config}}}},
            raise_on_error=False,
        )


@pytest.mark.usefixtures("environment")
def test_the_plan_is_the_default_and_writes_nothing(postgres_folder: Path) -> None:
    """A job with default settings only plans."""
    assert restore(postgres_folder / "pgdata").success
    assert list(postgres_folder.iterdir()) == []


@pytest.mark.usefixtures("environment")
def test_a_target_outside_the_window_fails_the_run(postgres_folder: Path) -> None:
    """The run fails with the refusal, and nothing is written."""
    done = restore(postgres_folder / "pgdata", to_time="2099-01-01 00:00:00+00", plan_only=False)
    assert not done.success
    [failure] = [event for event in done.all_events if event.is_step_failure]
    assert "is later than the last commit that is archived on timeline 1" in str(failure.step_failure_data)
    assert list(postgres_folder.iterdir()) == []


@pytest.mark.usefixtures("environment")
def test_the_job_brings_the_files_back_or_says_why_not(postgres_folder: Path) -> None:
    """The files are whole and have the target; where the server's user cannot run us, nothing is written."""
    done = restore(postgres_folder / "pgdata", plan_only=False)
    if done.success:
        assert (postgres_folder / "pgdata" / "recovery.signal").exists()
        return
    [failure] = [event for event in done.all_events if event.is_step_failure]
    assert os.geteuid() == 0
    assert f"cannot run '{sys.executable}'" in str(failure.step_failure_data)
    assert list(postgres_folder.iterdir()) == []
