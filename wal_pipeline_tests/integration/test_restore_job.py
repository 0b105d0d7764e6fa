"""Tests the restore as a Dagster job, which plans first and restores like the command."""

import ctypes
import errno
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, is_open_to, postgres_user
from testbed.s3_pair import S3Pair
from wal_pipeline.errors import RestoreError
from wal_pipeline.orchestration.jobs.restore.job import build_restore_job
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource, _open
from wal_pipeline.orchestration.runs.failures import NOTHING_CHANGED
from wal_pipeline_tests.support.restore_history import History

pytestmark = pytest.mark.integration
# The test bed may lend the server's user a capability with which to reach us. A run of the job as root does not.
RUNNABLE = is_open_to(replace(postgres_user(), reads_everything=False), Path(sys.executable))


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
def environment(lost: History, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A code location that has the stores' settings alone."""
    for name, value in {**lost.environment, "PGBINDIR": str(lost.install.bin_folder)}.items():
        monkeypatch.setenv(name, value)
    _open.cache_clear()
    yield
    _open.cache_clear()


def failure_of(done: dg.ExecuteInProcessResult) -> str:
    """Return what a failed run says."""
    [failure] = [event for event in done.all_events if event.is_step_failure]
    return str(failure.step_failure_data)


def failure_line(done: dg.ExecuteInProcessResult) -> str:
    """Return the first line that a failed run's page shows."""
    [failure] = [event for event in done.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    assert error is not None
    assert error.message.startswith("ERROR: ")
    return error.message.removesuffix("\n")


def says_nothing_changed(done: dg.ExecuteInProcessResult) -> bool:
    """Whether a failed run's page says that it changed nothing."""
    [failure] = [event for event in done.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    return told is not None and NOTHING_CHANGED in told.metadata


@pytest.mark.usefixtures("environment")
def test_a_restore_that_failed_on_its_way_does_not_say_that_nothing_changed(
    postgres_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first folder was made when the download failed, so a person has to look."""

    def fails(*_args: object, **_values: object) -> None:
        raise RestoreError("the disk is full")

    monkeypatch.setattr("wal_pipeline.commands.restore.files.placing.FilePlacing._place_tars", fails)
    monkeypatch.setattr("wal_pipeline.commands.restore.run.check_runnable", lambda *_args: None)
    done = restore(postgres_folder / "pgdata", plan_only=False)
    assert failure_line(done) == "ERROR: the disk is full"
    assert not says_nothing_changed(done)


@pytest.mark.usefixtures("environment")
def test_a_restore_whose_writes_the_disk_lost_is_no_restore(
    postgres_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may take everything and fail afterwards: nothing can be started then, and all is written anew."""
    pgdata = postgres_folder / "pgdata"

    def fails(_descriptor: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr("wal_pipeline.commands.restore.run.check_runnable", lambda *_args: None)
    with monkeypatch.context() as broken:
        broken.setattr("wal_pipeline.commands.restore.places.disk_flush._syncfs", fails)
        done = restore(pgdata, plan_only=False)
    lost = f"ERROR: the disk of '{pgdata}' lost something that was written since the restore began: Input/output error"
    assert failure_line(done).startswith(lost)
    assert not (pgdata / "global" / "pg_control").exists()
    pg_class = pgdata / "base" / "1" / "1259"
    os.utime(pg_class, (1, 1))
    assert restore(pgdata, plan_only=False).success
    assert pg_class.stat().st_mtime != 1
    assert (pgdata / "global" / "pg_control").exists()


def audit_lines(folder: Path) -> list[dict[str, str]]:
    """Return the audit log of this test's code location."""
    path = folder / "own-state" / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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
    """A job with default settings only plans, and the plan is its result, in rows that need no click."""
    done = restore(postgres_folder / "pgdata")
    assert done.success
    assert list(postgres_folder.iterdir()) == []
    [output] = [event for event in done.all_events if event.is_successful_output]
    found = {name: value.value for name, value in output.step_output_data.metadata.items()}
    rows = ["result", "target", "last_commit", "base_backup", "WAL", "download", "time", "data_directory"]
    assert list(found)[:8] == rows
    assert str(found["time"]).startswith("not known: ")
    if "will_refuse" not in found:
        assert found["result"] == "only planned, nothing was written: start the job with plan_only false to restore"
    else:  # where the server's user cannot enter this checkout
        assert found["result"] == "only planned; the restore would be refused for 1 reason: see will_refuse below"
        assert f"the user '{postgres_user().name}' cannot run" in str(found["will_refuse"])
    assert found["target"] == "the end of the archive, then promote, on timeline 1"
    assert found["data_directory"] == str(postgres_folder / "pgdata")


@pytest.mark.usefixtures("environment")
def test_a_target_outside_the_window_fails_the_run(postgres_folder: Path) -> None:
    """The run fails with the refusal, and nothing is written."""
    done = restore(postgres_folder / "pgdata", to_time="2099-01-01 00:00:00+00", plan_only=False)
    assert not done.success
    assert "is later than the last commit that is archived on timeline 1" in failure_of(done)
    assert says_nothing_changed(done)
    assert list(postgres_folder.iterdir()) == []


@pytest.mark.usefixtures("environment")
def test_what_may_be_a_copy_fails_the_run_before_it_writes(
    postgres_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's configuration that does not set archiving is asked for it; the plan is made all the same."""
    monkeypatch.setenv("PGDATA", str(postgres_folder / "main"))
    _open.cache_clear()
    assert restore(postgres_folder / "copy").success
    failure = failure_of(restore(postgres_folder / "copy", plan_only=False))
    assert "the restored server may be a copy beside its original" in failure
    assert "In a run's configuration: archiving: false or true." in failure
    assert "\n" not in failure_line(restore(postgres_folder / "copy", plan_only=False))
    assert list(postgres_folder.iterdir()) == []


@pytest.mark.usefixtures("environment")
def test_a_value_that_no_option_has_fails_the_run(postgres_folder: Path) -> None:
    """The launchpad's fields are free text: the failure names what is expected."""
    assert "'s3' is not a store, expected one of any, r2, b2, local." in failure_of(
        restore(postgres_folder / "pgdata", store="s3")
    )
    assert "'open' is not an action, expected one of pause, promote, shutdown." in failure_of(
        restore(postgres_folder / "pgdata", action="open")
    )


@pytest.mark.usefixtures("environment")
@pytest.mark.skipif(RUNNABLE, reason="the server's user can run the restore command here")
def test_a_restore_command_that_the_servers_user_cannot_run_is_refused(postgres_folder: Path) -> None:
    """Nothing is written then."""
    done = restore(postgres_folder / "pgdata", plan_only=False)
    assert f"cannot run '{sys.executable}'" in failure_of(done)
    assert list(postgres_folder.iterdir()) == []


@pytest.mark.usefixtures("environment")
def test_the_job_brings_the_files_back_for_the_servers_user(
    postgres_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root too, the data directory and the folder of files fetched ahead belong to the user who recovers."""
    if not RUNNABLE:  # then a program that this user can run stands in our place; no server is started with it
        monkeypatch.setattr(
            "wal_pipeline.commands.archive_get.restore_command.sys", SimpleNamespace(executable="/bin/true")
        )
    pgdata = postgres_folder / "pgdata"
    done = restore(pgdata, plan_only=False)
    assert done.success
    [prefetched] = (postgres_folder / ".wal-pipeline-prefetch").iterdir()
    made = [pgdata, pgdata / "recovery.signal", pgdata / "postgresql.auto.conf", prefetched, prefetched.parent]
    assert {path.stat().st_uid for path in made} == {postgres_user().uid}
    assert str(prefetched) in (pgdata / "postgresql.auto.conf").read_text()
    [line] = audit_lines(tmp_path)
    del line["at"]
    assert line == {
        "action": "restore",
        "subject": "main",
        "result": "restored",
        "by": f"run {done.run_id}",
        "pgdata": str(pgdata),
        "store": "any",
    }


@pytest.mark.usefixtures("environment")
@pytest.mark.skipif(not RUNNABLE, reason="the server's user cannot run the restore command here")
def test_the_job_starts_the_server_and_reports_the_moment(lost: History, postgres_folder: Path) -> None:
    """The metadata tells how far recovery came; nothing that was fetched ahead stays."""
    cluster = PostgresCluster(lost.install, postgres_folder)
    settings = {
        "port": str(cluster.port),
        "unix_socket_directories": str(cluster.socket_folder),
        "listen_addresses": "127.0.0.1",
    }
    try:
        done = restore(cluster.pgdata, plan_only=False, start=True, archiving=False, server_settings=settings)
        assert done.success
        assert cluster.value("SELECT count(*) FROM marks") == "1"
        [output] = [event for event in done.all_events if event.is_successful_output]
        metadata = output.step_output_data.metadata
        assert {"pgdata", "downloaded", "timeline", "download_took", "recovery_took"} <= set(metadata)
        assert {"last_commit_at", "replayed_lsn"} <= set(metadata)
        assert not (postgres_folder / ".wal-pipeline-prefetch").exists()
    finally:
        if (cluster.pgdata / "postmaster.pid").exists():
            cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(cluster.pgdata))
        cluster.remove()
