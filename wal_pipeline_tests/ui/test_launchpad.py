"""Tests that a restore can be planned in the launchpad by somebody who has never seen it."""

import re

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Orders, run_status

pytestmark = pytest.mark.ui
LAUNCHPAD = "/locations/wal_pipeline/jobs/restore_cluster/playground"


def test_the_scaffold_does_not_begin_with_what_nobody_needs(ui: Screen) -> None:
    """The text begins with the four fields of an emergency, and says what they take."""
    ui.open(LAUNCHPAD, "Launch Run")
    ui.assert_order("pgdata:", "plan_only: true", "store: any", "to_time:")
    ui.see("what_they_take")
    ui.picture("launchpad")


def test_the_plan_is_not_hidden_in_the_log(ui: Screen, orders: Orders) -> None:
    """A run of the launchpad's text with a folder and a moment shows the plan as its result."""
    config = {"pgdata": str(orders.cluster.folder / "restored"), "to_time": orders.target}
    run_id = orders.run("restore_cluster", {"ops": {"restore": {"config": config}}})
    assert run_status(orders.dagster, run_id) == "SUCCESS"
    ui.open(f"/runs/{run_id}", re.compile("STEP_OUTPUT"))
    ui.picture("restore-plan")
    assert not (orders.cluster.folder / "restored").exists()


def test_an_error_does_not_begin_with_a_stack_or_a_class(ui: Screen, orders: Orders) -> None:
    """A moment that cannot be reached is refused in one line, with its hint, before any stack."""
    config = {"pgdata": str(orders.cluster.folder / "restored"), "to_time": "2020-01-01 00:00:00+00"}
    run_id = orders.run("restore_cluster", {"ops": {"restore": {"config": config}}})
    ui.open(f"/runs/{run_id}", re.compile("STEP_FAILURE"))
    ui.picture("failed-run", around=ui.page.get_by_text("ERROR: ").filter(visible=True).last)
    ui.assert_order("STEP_FAILURE", "HINT:", "Stack Trace")
    assert not re.search(r"\b[\w.]+Error:|events\.Failure", ui.text)
