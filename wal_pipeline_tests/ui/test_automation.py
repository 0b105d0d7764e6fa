"""Tests that all that runs by itself is on one page, and that a person can stop it."""

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Orders, run_status

pytestmark = pytest.mark.ui


def test_no_schedule_or_sensor_is_missing_on_the_page(ui: Screen) -> None:
    """The page of the automation lists each with what it does."""
    ui.open("/automation", "spool_sensor", "base_backup_schedule", "recovery_drill_schedule")
    ui.picture("automation")


def test_archiving_cannot_only_be_paused_in_the_terminal(ui: Screen, orders: Orders) -> None:
    """Pause and resume are jobs, and the spool says that archiving is paused."""
    ui.open("/jobs", "pause_archiving", "resume_archiving")
    orders.run("pause_archiving")
    assert "PAUSED" in orders.cluster.command("status", expect=(0, 1, 2))
    assert run_status(orders.dagster, orders.run("resume_archiving")) == "SUCCESS"
    assert "PAUSED" not in orders.cluster.command("status")
