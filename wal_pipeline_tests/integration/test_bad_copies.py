"""Tests the whole repair in the UI with the real daemon: a command finds a missing copy, and one backfill mends it."""

from collections.abc import Iterator

import dagster as dg
import pytest

from testbed.postgres_install import PostgresInstall
from testbed.tls import TlsFiles
from wal_pipeline_tests.support.daemon_scene import DaemonScene, start_daemon_scene
from wal_pipeline_tests.support.dagster_graphql import partitions_by_status

pytestmark = [pytest.mark.integration, pytest.mark.left_out]
B2 = dg.AssetKey(["main", "wal_segment", "b2"])
_WINDOW = """
query Window {
  assetOrError(assetKey: {path: ["main", "recovery_window"]}) {
    ... on Asset { assetMaterializations(limit: 1) { runId metadataEntries { label } } }
  }
}"""


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, postgres18: PostgresInstall, tls_files: TlsFiles
) -> Iterator[DaemonScene]:
    """A running pipeline whose health is looked at every five seconds, not every minute."""
    folder, often = tmp_path_factory.mktemp("bad"), {"WAL_PIPELINE_HEALTH_INTERVAL_SECONDS": "5"}
    with start_daemon_scene(postgres18, folder, tls_files, prepare=lambda _cluster, _pair: often) as scene:
        yield scene


def test_failed_and_missing_is_the_whole_repair(scene: DaemonScene) -> None:
    """'verify' finds two missing copies; their partitions fail, and a backfill of what failed makes all green again."""
    names = scene.write_segments(4)
    scene.wait_archived(names)
    scene.wait_recorded(names)
    scene.hide("b2", names[1:3])
    assert "is not there" in scene.command("verify", code=1)

    scene.wait(lambda: partitions_by_status(scene.dagster.graphql, B2)["failed"] == names[1:3], timeout_seconds=180)
    found = partitions_by_status(scene.dagster.graphql, B2)
    scene.backfill("b2", [*found["failed"], *found["missing"]])

    scene.wait(lambda: partitions_by_status(scene.dagster.graphql, B2)["failed"] == [])
    assert set(partitions_by_status(scene.dagster.graphql, B2)["materialized"]) >= set(names)
    scene.wait_archived(names)
    assert scene.recorded("b2") >= set(names)


def test_the_window_is_shown_without_a_run(scene: DaemonScene) -> None:
    """The daemon's look at the health brings the window up to date, with the answer in the first row."""

    def newest() -> dict[str, object]:
        [found] = scene.dagster.graphql(_WINDOW)["assetOrError"]["assetMaterializations"]
        return dict(found)

    scene.wait(lambda: newest()["runId"] == "", timeout_seconds=180)
    labels = [entry["label"] for entry in newest()["metadataEntries"]]  # type: ignore[attr-defined]
    assert labels[:3] == ["answer", "windows", "picture"]
