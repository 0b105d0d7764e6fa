"""Tests that a copy that was found missing is shown so, and that 'Failed and missing, Launch' is the whole repair."""

import re

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Orders, wait

pytestmark = [pytest.mark.ui, pytest.mark.timeout(900)]
_SHOWN_WITHIN_SECONDS = 400  # the sensor that follows the catalog looks less often where the machine is busy
PARTITIONS = "/assets/orders/wal_segment/b2?view=partitions"


def test_copies_that_are_gone_do_not_stay_green_and_one_click_repairs_them(ui: Screen, orders: Orders) -> None:
    """Copies are deleted behind our back; 'verify' finds them; the UI shows them and its backfill stores them again."""
    cluster, lost = orders.cluster, orders.names[2:5]
    cluster.delete("b2", lost)
    cluster.command("verify", expect=(1,))
    ui.open(PARTITIONS)
    wait(orders.dagster, lambda: _bad(ui) == len(lost), timeout_seconds=_SHOWN_WITHIN_SECONDS)
    ui.picture("partitions-after-a-deletion")

    ui.click("Materialize…")
    ui.see("Partition selection")
    assert "is not advised" not in ui.text
    ui.click("Failed and missing")
    ui.see(f"{len(lost)} partitions")
    ui.picture("backfill")
    ui.click("Launch backfill")
    cluster.wait_archived(lost)
    ui.open(PARTITIONS)
    wait(orders.dagster, lambda: _bad(ui) == 0)


def _bad(ui: Screen) -> int:
    """Count the partitions that are failed or missing, on a page that is loaded anew."""
    ui.page.reload()
    ui.see(re.compile(r"Missing \(\d+\)"))
    return sum(int(count) for count in re.findall(r"(?:Failed|Missing) \((\d+)\)", ui.text))
