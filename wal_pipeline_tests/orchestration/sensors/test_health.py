"""Tests the health sensor's tick, which observes, opens alerts and starts no run, also without the catalog."""

import json

import dagster as dg
import pytest

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.commands.health.facts import look_at_everything
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.health_pipeline import KEYS, tick
from wal_pipeline_tests.support.health_scene import HealthScene


def test_sensor_starts_no_run(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """A tick observes the spool with numbers, and requests no run."""
    result = tick(instance, resource, None)
    assert not result.run_requests
    assert result.skip_reason is not None
    assert result.skip_reason.skip_message == "nothing needs a person"
    [event] = result.asset_events
    assert event.asset_key == KEYS.spool
    looked_at = look_at_everything(scene.sources).sensor_looked_at
    assert looked_at is not None
    assert looked_at >= scene.now
    assert {key: event.metadata[key].value for key in ("spool_files", "lag_seconds", "problems", "verdict")} == {
        "spool_files": 0,
        "lag_seconds": 2.0,
        "problems": 0,
        "verdict": "ok",
    }


def test_sensor_observes_what_changed(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """A quiet tick leaves no observation; a new problem leaves one, and opens its alert."""
    first = tick(instance, resource, None)
    assert tick(instance, resource, first.cursor).asset_events == []
    scene.quarantine(3)
    assert len(tick(instance, resource, first.cursor).asset_events) == 1
    assert [alert.kind for alert in scene.catalog.alerts.active()] == [AlertKind.QUARANTINE]


def test_sensor_without_the_catalog(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick reports a catalog that cannot be opened, and keeps the outage in its cursor until it is over."""
    (scene.folder / "other.env").touch()
    (scene.folder / "folder").mkdir()
    with monkeypatch.context() as broken:
        broken.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{scene.folder}/folder")
        result = tick(instance, WalPipelineResource(env_file=str(scene.folder / "other.env")), None)
    assert result.skip_reason is not None
    assert result.skip_reason.skip_message == "1 catalog_down"
    assert result.asset_events == []
    after = tick(instance, resource, result.cursor)
    assert after.skip_reason is not None
    assert after.skip_reason.skip_message == "nothing needs a person"
    assert json.loads(result.cursor or "")["outage"] is not None
    assert json.loads(after.cursor or "")["outage"] is None
