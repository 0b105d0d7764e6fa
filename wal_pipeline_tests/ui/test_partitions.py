"""Tests that a copy that was found missing is shown so, and that 'Failed and missing, Launch' is the whole repair."""

import re

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Orders, wait

pytestmark = pytest.mark.ui
PARTITIONS = "/assets/orders/wal_segment/b2?view=partitions"


def test_copies_that_are_gone_do_not_stay_green_and_one_click_repairs_them(ui: Screen, orders: Orders) -> None:
    """Copies are deleted behind our back; 'verify' finds them; the UI shows them and its backfill stores them again."""
    cluster, lost = orders.cluster, orders.names[2:5]
    cluster.delete("b2", lost)
    cluster.command("verify", expect=(1,))
    ui.open(PARTITIONS)
    wait(orders.dagster, lambda: _counts(ui)["Failed"] + _counts(ui)["Missing"] == len(lost))
    ui.picture("partitions-after-a-deletion")

    ui.click("Materialize…", role="button")
    ui.see("Partition selection")
    assert "is not advised" not in ui.text
    ui.click("Failed and missing", role="button")
    ui.see(f"{len(lost)} partitions")
    ui.picture("backfill")
    ui.click("Launch backfill", role="button")
    cluster.wait_archived(lost)
    ui.open(PARTITIONS)
    wait(orders.dagster, lambda: _counts(ui)["Failed"] + _counts(ui)["Missing"] == 0)


def _counts(ui: Screen) -> dict[str, int]:
    """Read how many partitions have each status, on a page that is loaded anew."""
    ui.page.reload()
    ui.see(re.compile(r"Missing \(\d+\)"))
    return {name: int(count) for name, count in re.findall(r"(Failed|Missing|Materialized) \((\d+)\)", ui.text)}
