"""Tests that a restore can be planned in the launchpad by somebody who has never seen it."""

import re

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Orders

pytestmark = pytest.mark.ui
LAUNCHPAD = "/locations/wal_pipeline/jobs/restore_cluster/playground"


def test_the_scaffold_does_not_begin_with_what_nobody_needs(ui: Screen) -> None:
    """The text begins with the four fields of an emergency, and says what they take."""
    ui.forget()
    ui.open(LAUNCHPAD, "Launch Run")
    ui.assert_order("pgdata:", "plan_only: true", "store: any", "to_time:")
    ui.see("what_they_take")
    ui.picture("launchpad")


def test_the_plan_is_not_hidden_in_the_log(ui: Screen, orders: Orders) -> None:
    """A run that is launched by hand, with a folder and a moment, shows the plan as its result and writes nothing."""
    folder, moment = orders.cluster.folder / "restored", orders.target
    config = f'{{pgdata: {folder}, to_time: "{moment}", archiving: false}}'
    ui.launch(LAUNCHPAD, f"{{ops: {{restore: {{config: {config}}}}}}}")
    ui.see("STEP_SUCCESS")
    ui.assert_order("STEP_OUTPUT", "result", "only planned", "target", "base_backup", "WAL")
    assert not (orders.cluster.folder / "restored").exists()


def test_an_error_does_not_begin_with_a_stack_or_a_class(ui: Screen, orders: Orders) -> None:
    """A moment that cannot be reached is refused in one line, with its hint, before any stack."""
    config = {"pgdata": str(orders.cluster.folder / "restored"), "to_time": "2020-01-01 00:00:00+00"}
    run_id = orders.run("restore_cluster", {"ops": {"restore": {"config": config}}})
    ui.open(f"/runs/{run_id}", re.compile("STEP_FAILURE"))
    ui.picture("failed-run", around=ui.page.get_by_text("ERROR: ").filter(visible=True).last)
    ui.assert_order("STEP_FAILURE", "HINT:", "Stack Trace")
    assert not re.search(r"\b[\w.]+Error:|events\.Failure", ui.text)
