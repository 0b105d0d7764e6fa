"""Tests that the pages of runs say whose they are, and where an archiving run's time went."""

import re

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Orders

pytestmark = pytest.mark.ui
STEPS = ("read and checksum", "compress", "store and read back on b2", "store and read back on r2", "wait for files")


def test_the_time_of_an_archiving_run_is_not_hidden(ui: Screen, orders: Orders) -> None:
    """The run's page has a table by step."""
    ui.open(f"/runs/{orders.archiving_run()}", re.compile("STEP_OUTPUT"))
    ui.assert_order(*STEPS)
    ui.page.get_by_text("View full message").last.click()
    ui.see("the whole run")
    ui.picture("archiving-run")


def test_no_run_is_listed_without_its_cluster(ui: Screen) -> None:
    """The list of runs names the cluster, and no queue of a worker that is not there."""
    ui.open("/runs", "wal_pipeline/cluster: orders")
    ui.picture("runs")
    assert "celery" not in ui.text


def test_a_mistyped_run_does_not_stay_a_warning(ui: Screen, orders: Orders) -> None:
    """A restore that was refused changed nothing: no alert is open for it."""
    config = {"pgdata": "relative/folder"}
    orders.run("restore_cluster", {"ops": {"restore": {"config": config}}})
    assert "WARNING" not in orders.cluster.command("alerts", expect=(0, 1, 2))
