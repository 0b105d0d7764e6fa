"""Tests that lineage, catalog and each asset's page say what they show, of which cluster and store."""

import re

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Orders

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
