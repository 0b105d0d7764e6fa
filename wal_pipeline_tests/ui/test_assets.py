"""Tests that lineage, catalog and each asset's page say what they show, of which cluster and store."""

import re

import pytest
from rich.text import Text

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.cluster import STORES
from wal_pipeline_tests.support.ui.history import LATER_NOTE, NOTE, Orders, materialized, wait

pytestmark = pytest.mark.ui
ASSETS = (
    "spool",
    "wal_segment/r2",
    "wal_segment/b2",
    "base_backup/r2",
    "base_backup/b2",
    "recovery_window",
    "open_alerts",
    "recovery_drill",
    "cost",
)

_EXACT = ("object_key", "system_identifier")


@pytest.mark.parametrize("asset", ASSETS)
def test_no_value_is_shown_that_nobody_reads(ui: Screen, asset: str) -> None:
    """No value has more than three decimals, and no number of bytes stands without a unit."""
    ui.open(f"/assets/orders/{asset}", "Timestamp")
    rows = ui.metadata()
    assert rows
    for key, value in rows.items():
        assert key in _EXACT or not re.search(r"\d\.\d{4}", value), (key, value)
        assert key in _EXACT or not re.fullmatch(r"\d{7,}", value), (key, value)


@pytest.mark.parametrize("asset", ASSETS)
def test_no_asset_hides_what_updates_it_and_whose_it_is(ui: Screen, asset: str) -> None:
    """Each page has kinds, an owner, and the sensor, schedule or job that brings it up to date."""
    ui.open(f"/assets/orders/{asset}", "Definition")
    ui.see("Owners")
    ui.see("Kinds")
    assert "No automations found" not in ui.text


def test_the_spool_was_never_called_never_materialized(ui: Screen) -> None:
    """The page of the spool says when it was looked at."""
    ui.open("/assets/orders/spool", "Timestamp")
    assert "Never materialized" not in ui.text


def test_no_name_in_the_catalog_lacks_its_cluster_or_store(ui: Screen) -> None:
    """The catalog lists each asset with its cluster, and those of a store with the store."""
    ui.open("/assets", "orders / cost")
    for asset in ASSETS:
        assert "orders / " + asset.replace("/", " / ") in ui.text
    ui.picture("catalog")


def test_no_box_of_the_lineage_lacks_its_cluster(ui: Screen, orders: Orders) -> None:
    """The groups carry the cluster, and stand in the order in which data flows."""
    ui.open("/asset-groups", "orders_4_cost")
    ui.assert_order("orders_1_wal", "orders_2_backups", "orders_3_recovery", "orders_4_cost")
    ui.picture("lineage-one-cluster")


@pytest.mark.parametrize("store", STORES)
def test_the_page_of_base_backups_does_not_go_back_to_an_older_one(ui: Screen, orders: Orders, store: str) -> None:
    """The one that the terminal took earlier is recorded too, and the page says what the newest is."""
    wait(orders.dagster, lambda: len(materialized_base_backups(orders, store)) == 2)
    ui.open(f"/assets/orders/base_backup/{store}", "Timestamp")
    rows = ui.metadata()
    assert re.match(rf"full base backup on {store}, finished \S+ \S+Z, .* MiB, stored as .* MiB$", rows["answer"])
    assert rows["note"] == LATER_NOTE
    assert rows["method"].startswith("local: ")


def test_a_note_is_not_only_where_it_was_typed(ui: Screen, orders: Orders) -> None:
    """The plan of a restore names it beside the base backup that it takes, in the UI and in the terminal."""
    folder = orders.cluster.folder / "restored"
    config = {"pgdata": str(folder), "to_time": orders.target, "archiving": False}
    run_id = orders.run("restore_cluster", {"ops": {"restore": {"config": config}}})
    ui.open(f"/runs/{run_id}", "STEP_SUCCESS")
    ui.assert_order("base_backup", f"({NOTE})", "time", "about ")
    plan = orders.cluster.terminal("restore", "--plan", "--to-time", orders.target, "--pgdata", str(folder))
    assert f"({NOTE}), full, finished" in Text.from_ansi(plan).plain


def materialized_base_backups(orders: Orders, store: str) -> set[str]:
    """The base backups of which Dagster has ever recorded a copy on a store."""
    return materialized(orders.dagster, orders.cluster.name, store, "base_backup")
