"""Tests the health sensor's tick, which observes, opens alerts and starts no run, also without the catalog."""

import json

import dagster as dg
import pytest

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.commands.health.facts import look_at_everything
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.health_pipeline import tick, tick_and_report
from wal_pipeline_tests.support.health_scene import HealthScene


def materialized(result: dg.SensorResult) -> dict[str, dg.AssetMaterialization]:
    """Return the materializations of a tick by the last part of their asset's key."""
    found = [event for event in result.asset_events if isinstance(event, dg.AssetMaterialization)]
    return {event.asset_key.path[-1]: event for event in found}


def test_sensor_starts_no_run(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """A tick shows the spool, the window and the alerts, each with a sentence first, and requests no run."""
    result = tick(instance, resource, None)
    assert not result.run_requests
    assert result.skip_reason is not None
    assert result.skip_reason.skip_message == "nothing needs a person"
    shown = materialized(result)
    assert set(shown) == {"spool", "recovery_window", "open_alerts"}
    assert {next(iter(event.metadata)) for event in shown.values()} == {"answer"}
    looked_at = look_at_everything(scene.sources).sensor_looked_at
    assert looked_at is not None
    assert looked_at >= scene.now
    spool = shown["spool"].metadata
    assert spool["answer"].value == "nothing waits in the spool: each archived file is on every store"
    assert {key: spool[key].value for key in ("waiting_files", "lag_seconds")} == {"waiting_files": 0, "lag_seconds": 2}


def test_sensor_shows_what_changed(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """A quiet tick leaves the spool as it is shown; a new problem is shown at once, and opens its alert."""
    first = tick_and_report(instance, resource, None)
    second = tick_and_report(instance, resource, first.cursor)
    assert not {"spool", "open_alerts"} & materialized(second).keys()
    assert not [event for event in second.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    scene.quarantine(3)
    third = materialized(tick_and_report(instance, resource, first.cursor))
    assert str(third["spool"].metadata["answer"].value).endswith("; 1 file in quarantine")
    sentence = str(third["open_alerts"].metadata["answer"].value)
    assert sentence.startswith("1 thing needs a person: quarantine ")
    table = third["open_alerts"].metadata["alerts"]
    assert isinstance(table, dg.TableMetadataValue)
    [row] = [record.data for record in table.records]
    assert (row["severity"], row["what mends it"]) == ("critical", "wal-pipeline check")
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
