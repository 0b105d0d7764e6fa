"""Tests archiving runs in a warm worker, and without it where it is gone."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall
from testbed.tls import TlsFiles
from testbed.warm_workers import INSTANCE_FILE, WarmWorker, missing_part, running_redis, running_worker
from wal_pipeline_tests.support.daemon_scene import DaemonScene, start_daemon_scene

pytestmark = [pytest.mark.integration, pytest.mark.skipif(missing_part() is not None, reason=str(missing_part()))]

_TERMINATE = "mutation Terminate($id: String!) { terminateRun(runId: $id) { __typename } }"
_TASK = "dagster-celery/task_id"


@dataclass(frozen=True, slots=True)
class WarmScene:
    """The real daemon, and the worker that takes its runs."""

    daemon: DaemonScene
    worker: WarmWorker

    def runs_in_worker(self, pid: int) -> bool:
        """Whether a process is the worker's child."""
        status = Path(f"/proc/{pid}/stat").read_text()
        return int(status.rpartition(")")[2].split()[1]) == self.worker.process.pid

    def next_archiving_pid(self) -> int:
        """Finish a segment, and return the process that archives it."""
        self.daemon.write_segments(1)
        return self.daemon.wait_archiving()

    def status(self, run_id: str) -> str:
        """The status of a run in Dagster."""
        return {run.run_id: run.status for run in self.daemon.sensor_runs()}[run_id]


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, postgres18: PostgresInstall, tls_files: TlsFiles
) -> Iterator[WarmScene]:
    """A pipeline whose runs last longer than the limit for lost runs."""
    folder = tmp_path_factory.mktemp("warm")
    with running_redis(folder / "redis") as redis:
        settings = {**redis.environment, "WAL_PIPELINE_LINGER_SECONDS": "5", "WAL_PIPELINE_LOST_RUN_SECONDS": "4"}
        with (
            start_daemon_scene(
                postgres18, folder, tls_files, instance_file=INSTANCE_FILE, prepare=lambda *_: settings
            ) as daemon,
            running_worker(folder, daemon.dagster.environment) as worker,
        ):
            yield WarmScene(daemon, worker)


@pytest.mark.left_out
def test_a_run_in_the_worker_is_not_taken_for_lost(scene: WarmScene) -> None:
    """The run works in the worker's process, lasts longer than the limit for lost runs, and succeeds."""
    names = scene.daemon.write_segments(2)
    assert scene.runs_in_worker(scene.daemon.wait_archiving())
    newest = scene.daemon.sensor_runs()[0]
    scene.daemon.wait_archived(names)
    scene.daemon.wait(lambda: scene.status(newest.run_id) != "STARTED")
    assert scene.status(newest.run_id) == "SUCCESS"
    assert _TASK in newest.tags


def test_a_run_that_is_terminated_ends_and_the_worker_lives(scene: WarmScene) -> None:
    """'Terminate' in the UI cancels the run, and a fresh process does the rest."""
    names = scene.daemon.write_segments(12)
    canceled_pid = scene.daemon.wait_archiving()
    newest = scene.daemon.sensor_runs()[0]
    answer = scene.daemon.dagster.graphql(_TERMINATE, id=newest.run_id)["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess"
    scene.daemon.wait(lambda: scene.status(newest.run_id) == "CANCELED")
    scene.daemon.wait_archived(names)
    pid = scene.next_archiving_pid()
    assert pid != canceled_pid
    assert scene.runs_in_worker(pid)


def test_a_killed_run_is_followed_by_one_in_a_fresh_process(scene: WarmScene) -> None:
    """After a SIGKILL the run is marked as failed, and the worker's next process does the rest."""
    names = scene.daemon.write_segments(30)
    pid = scene.daemon.wait_archiving()
    newest = scene.daemon.sensor_runs()[0]
    scene.daemon.wait(lambda: scene.daemon.has_left(names[:1]))
    assert scene.daemon.spooled() & set(names), "the run was over before it was killed"
    os.kill(pid, signal.SIGKILL)
    scene.daemon.wait_archived(names)
    assert scene.status(newest.run_id) == "FAILURE"
    assert scene.daemon.sensor_runs()[0].run_id != newest.run_id
    assert scene.runs_in_worker(scene.next_archiving_pid())


def test_without_the_worker_runs_start_as_ever(scene: WarmScene) -> None:
    """After the whole worker was killed during a run, the code server starts the next run."""
    names = scene.daemon.write_segments(12)
    scene.daemon.wait_archiving()
    newest = scene.daemon.sensor_runs()[0]
    scene.worker.process.kill()
    scene.daemon.wait_archived(names)
    assert scene.status(newest.run_id) == "FAILURE"
    assert _TASK not in scene.daemon.sensor_runs()[0].tags
