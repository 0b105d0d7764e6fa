"""Tests what Dagster's UI is told about the assets: order, groups, owners, what updates them, and no false red."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from wal_pipeline.orchestration.jobs.record import build_record_job
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.dagster_graphql import DagsterUi, dagster_ui
from wal_pipeline_tests.support.health_pipeline import KEYS, tick_and_report
from wal_pipeline_tests.support.health_scene import HealthScene

_NEWEST = """
assetMaterializations(limit: 1) {
  runId
  metadataEntries { label __typename ... on TextMetadataEntry { text } }
}"""
_CHECKS = """
assetChecksOrError {
  ... on AssetChecks {
    checks { name executionForLatestMaterialization { status evaluation { severity description } } }
  }
}"""
_ALL = """
query All {
  assetNodes {
    assetKey { path } groupName description kinds
    owners { ... on UserAssetOwner { email } ... on TeamAssetOwner { team } }
  }
}"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose storage is SQLite, as in an installation: GraphQL asks no other."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as made:
        yield made


@pytest.fixture
def ui(scene: HealthScene, instance: dg.DagsterInstance) -> Iterator[DagsterUi]:
    with dagster_ui(instance) as made:
        yield made


def newest(ui: DagsterUi, key: dg.AssetKey) -> dict[str, Any]:
    [found] = ui.asset(key, _NEWEST)["assetMaterializations"]
    return dict(found)


def checks(ui: DagsterUi, key: dg.AssetKey) -> dict[str, tuple[str, str]]:
    """Return status and severity of each check that counts for the newest materialization."""
    found = ui.asset(key, _CHECKS)["assetChecksOrError"]["checks"]
    done = {one["name"]: one["executionForLatestMaterialization"] for one in found}
    return {name: (one["status"], one["evaluation"]["severity"]) for name, one in done.items() if one is not None}


def test_the_ui_shows_the_answer_first(
    ui: DagsterUi, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """GraphQL gives the rows in the order in which the UI shows them, and no run was needed for them."""
    tick_and_report(instance, resource, None)
    window = newest(ui, KEYS.recovery_window)
    assert window["runId"] == ""
    assert [entry["label"] for entry in window["metadataEntries"]][:3] == ["answer", "windows", "picture"]
    assert [entry["__typename"] for entry in window["metadataEntries"]][:3] == [
        "TextMetadataEntry",
        "TableMetadataEntry",
        "MarkdownMetadataEntry",
    ]
    assert window["metadataEntries"][0]["text"].startswith("main can be recovered to ")
    assert newest(ui, KEYS.spool)["metadataEntries"][0]["text"].startswith("nothing waits in the spool")
    assert newest(ui, KEYS.open_alerts)["metadataEntries"][0]["text"] == "nothing needs a person"


def test_a_new_installation_shows_no_red(
    ui: DagsterUi, resource: WalPipelineResource, instance: dg.DagsterInstance
) -> None:
    """After the first base backup no check has failed; a drill that is not due yet is a warning, on the drill."""
    tick_and_report(instance, resource, None)
    window = checks(ui, KEYS.recovery_window)
    assert set(window) == {"can_be_restored_r2", "can_be_restored_b2", "no_gap_inside_r2", "no_gap_inside_b2"}
    assert {status for status, _ in window.values()} == {"SUCCEEDED"}
    assert checks(ui, KEYS.spool) == {"under_limit": ("SUCCEEDED", "ERROR")}
    assert checks(ui, KEYS.recovery_drill) == dict.fromkeys(("last_drill_r2", "last_drill_b2"), ("FAILED", "WARN"))


def test_a_window_that_ended_is_red_a_minute_later(
    ui: DagsterUi,
    scene: HealthScene,
    resource: WalPipelineResource,
    instance: dg.DagsterInstance,
) -> None:
    """The checks follow the facts while no run is there, also where a run evaluated them last."""
    cursor = tick_and_report(instance, resource, None).cursor
    done = build_record_job(KEYS).execute_in_process(instance=instance, resources={"wal_pipeline": resource})
    assert done.success
    assert checks(ui, KEYS.recovery_window)["can_be_restored_b2"] == ("SUCCEEDED", "ERROR")
    [backup] = scene.catalog.base_backups.all()
    scene.catalog.base_backups.remove_copy(backup.system_identifier, backup.backup_id, "b2")
    tick_and_report(instance, resource, cursor)
    window = checks(ui, KEYS.recovery_window)
    assert window["can_be_restored_b2"] == ("FAILED", "ERROR")
    assert window["can_be_restored_r2"] == ("SUCCEEDED", "ERROR")
    text = newest(ui, KEYS.recovery_window)["metadataEntries"][0]["text"]
    assert text.endswith("; from b2 nothing")


def test_groups_titles_and_owners_carry_the_cluster(
    scene: HealthScene,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lineage makes a box of each group name, and two clusters must not share one. The UI sorts groups by name."""
    monkeypatch.setenv("WAL_PIPELINE_CLUSTER", "orders-eu")
    monkeypatch.setenv("WAL_PIPELINE_OWNERS", "dba@example.com, team:dba")
    with dagster_ui(instance) as ui:
        nodes = {"/".join(node["assetKey"]["path"]): node for node in ui.ask(_ALL)["assetNodes"]}
    groups = {key: node["groupName"] for key, node in nodes.items()}
    assert sorted(groups, key=lambda key: (groups[key], key)) == [
        "orders-eu/spool",
        "orders-eu/wal_segment/b2",
        "orders-eu/wal_segment/r2",
        "orders-eu/base_backup/b2",
        "orders-eu/base_backup/r2",
        "orders-eu/clones",
        "orders-eu/found_transactions",
        "orders-eu/open_alerts",
        "orders-eu/recovery_drill",
        "orders-eu/recovery_window",
        "orders-eu/rescued_tables",
        "orders-eu/cost",
    ]
    assert all(group.startswith("orders_eu_") for group in groups.values())
    titles = {key: node["description"].partition(".")[0] for key, node in nodes.items()}
    assert titles["orders-eu/wal_segment/r2"] == "orders-eu: WAL on r2"
    assert titles["orders-eu/base_backup/b2"] == "orders-eu: base backups on b2"
    assert all(title.startswith("orders-eu: ") for title in titles.values())
    assert all(node["owners"] == [{"email": "dba@example.com"}, {"team": "dba"}] for node in nodes.values())
    assert all(node["kinds"] for node in nodes.values())


def test_minutes_do_not_pile_up(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, ui: DagsterUi
) -> None:
    """Dagster keeps an event for ever, so of the minutes of an hour few stay, and the newest always does."""
    cursor = None
    for number in range(11, 23):
        scene.now += timedelta(seconds=1)
        scene.archive(number)
        cursor = tick_and_report(instance, resource, cursor).cursor
    tick_and_report(instance, resource, cursor)
    kept = ui.asset(KEYS.recovery_window, "assetMaterializations(limit: 100) { runId }")["assetMaterializations"]
    assert 1 <= len(kept) <= 4
    assert newest(ui, KEYS.recovery_window)["metadataEntries"][0]["text"].startswith("main can be recovered to ")
