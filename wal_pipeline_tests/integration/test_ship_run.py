"""Tests that Dagster's daemon keeps one shipping run at work, whatever ends it, and shows the tails."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.dagster_instance import LOCATION, PROJECT, REPOSITORY
from testbed.postgres_install import PostgresInstall
from testbed.processes import lock_holder
from testbed.tls import TlsFiles
from wal_pipeline_tests.support.daemon_scene import STORES, DaemonScene, Run, start_daemon_scene

pytestmark = pytest.mark.integration
_ASSET = """
query Tail($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) {
    ... on Asset {
      assetObservations(limit: 1) { metadataEntries { label ... on TextMetadataEntry { text } } }
    }
  }
}"""

_TICK = """
query Tick($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) { ... on Sensor { sensorState { ticks(limit: 1) { skipReason } } } }
}"""


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, postgres15: PostgresInstall, tls_files: TlsFiles
) -> Iterator[DaemonScene]:
    """A server whose open segment is shipped each second by runs that hand over after a minute."""
    more = {
        "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "1",
        "WAL_PIPELINE_MAX_RUN_AGE_SECONDS": "60",
        "WAL_PIPELINE_HEALTH_INTERVAL_SECONDS": "5",
    }
    folder = tmp_path_factory.mktemp("ship")
    with start_daemon_scene(
        postgres15, folder, tls_files, prepare=lambda cluster, _pair: {**more, "PGDATA": str(cluster.pgdata)}
    ) as made:
        made.cluster.psql("CREATE TABLE orders (id bigserial PRIMARY KEY)")
        made.wait_recorded(made.write_segments(1))  # without records there is no status
        yield made


def runs(scene: DaemonScene) -> list[Run]:
    """Return the shipping runs of the sensor, the newest first."""
    return scene.runs(**{"dagster/sensor_name": "ship_sensor"})


def shipper(scene: DaemonScene) -> int | None:
    """Return the process that ships; None where none does."""
    return lock_holder(scene.state / "ship.lock")


def tails(scene: DaemonScene) -> dict[str, Any]:
    """Return each store's tail, as status says it."""
    values = json.loads(scene.command("status", "--json"))
    return {store: values["stores"][store]["tail"] for store in STORES}


def commit_and_wait(scene: DaemonScene) -> None:
    """Commit a row, and wait until each store has it: the server's own position proves it."""
    scene.cluster.psql("INSERT INTO orders DEFAULT VALUES")
    scene.wait(lambda: all(one["behind_seconds"] == 0 and one["state"] == "running" for one in tails(scene).values()))


def test_a_commit_in_the_open_segment_leaves_the_host(scene: DaemonScene) -> None:
    """A run of the sensor ships it; each store has pieces, and the asset says to where."""
    commit_and_wait(scene)
    assert all(one["pieces"] for one in tails(scene).values())
    assert shipper(scene) is not None
    assert runs(scene)[0].status == "STARTED"
    for store in STORES:
        scene.wait(lambda store=store: "behind" in answer(scene, store))  # type: ignore[misc]


def answer(scene: DaemonScene, store: str) -> str:
    """Return the sentence of the newest observation of a tail; empty where there is none."""
    found = scene.dagster.graphql(_ASSET, key={"path": ["main", "wal_tail", store]})["assetOrError"]
    entries = [entry for one in found.get("assetObservations", ()) for entry in one["metadataEntries"]]
    return str(next((entry["text"] for entry in entries if entry["label"] == "answer"), ""))


def test_a_killed_shipper_is_followed_by_another(scene: DaemonScene) -> None:
    """Dagster marks the run as failed, and the next one goes on where the tail ends."""
    scene.wait(lambda: shipper(scene) is not None)
    killed, pid = runs(scene)[0], shipper(scene)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    scene.cluster.psql("INSERT INTO orders DEFAULT VALUES")
    scene.wait(lambda: shipper(scene) not in (None, pid), timeout_seconds=150)
    commit_and_wait(scene)
    assert {run.run_id: run.status for run in runs(scene)}[killed.run_id] == "FAILURE"


@pytest.mark.left_out
def test_the_next_run_is_ready_before_one_ends(scene: DaemonScene) -> None:
    """It waits for the lock: at no time do two ship, and no commit waits for a process to start."""
    scene.wait(lambda: len([run for run in runs(scene) if run.status == "SUCCESS"]) >= 1, timeout_seconds=240)
    found = {run.run_id: run for run in runs(scene)}
    ended = next(run for run in found.values() if run.status == "SUCCESS")
    later = [run for run in found.values() if run.started and ended.started and run.started > ended.started]
    assert later
    first = min(later, key=lambda run: run.started or 0.0)
    assert first.started is not None and ended.ended is not None and first.started < ended.ended
    commit_and_wait(scene)


def test_a_pause_ends_the_run_and_no_other_begins(scene: DaemonScene) -> None:
    """Runs in flight end well, and after 'resume' the sensor starts one."""
    scene.command("pause", "--for", "1h")
    scene.wait(lambda: shipper(scene) is None and all(run.status != "STARTED" for run in runs(scene)))
    paused = {run.run_id for run in runs(scene)}
    assert {one["state"] for one in tails(scene).values()} == {"paused"}
    scene.command("resume")
    scene.wait(lambda: shipper(scene) is not None)
    assert runs(scene)[0].run_id not in paused
    commit_and_wait(scene)


@pytest.mark.left_out
def test_beside_the_command_no_run_begins(scene: DaemonScene) -> None:
    """While 'wal-pipeline ship' has the lock, the sensor says so and starts none; afterwards it starts one."""
    scene.command("pause", "--for", "1h")
    scene.wait(lambda: shipper(scene) is None)
    before = {run.run_id for run in runs(scene)}
    command = [sys.executable, "-m", "wal_pipeline.cli", "ship"]
    with subprocess.Popen(command, env=scene.dagster.environment, cwd=PROJECT) as process:
        try:
            scene.wait(lambda: shipper(scene) == process.pid)  # it waits for the end of the pause, with the lock
            scene.command("resume")
            commit_and_wait(scene)
            scene.wait(lambda: "'wal-pipeline ship' holds its lock" in why_nothing_began(scene))
            assert {run.run_id for run in runs(scene)} == before
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    scene.wait(lambda: shipper(scene) not in (None, process.pid))


def why_nothing_began(scene: DaemonScene) -> str:
    """Return what the sensor's last tick said."""
    selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "sensorName": "ship_sensor"}
    ticks = scene.dagster.graphql(_TICK, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
    return str(ticks[0]["skipReason"]) if ticks else ""
