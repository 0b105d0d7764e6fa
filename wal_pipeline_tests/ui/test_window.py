"""Tests that the page of the recovery window begins with its answer."""

import re

import pytest

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import Fleet, wait

pytestmark = pytest.mark.ui
WINDOW = "/assets/{cluster}/recovery_window"


def test_the_first_row_is_not_a_number_but_the_answer(ui: Screen) -> None:
    """First comes a sentence, then a table with a line for each store, then the picture; nothing is behind a click."""
    ui.open(WINDOW.format(cluster="orders"), "Timestamp")
    rows = ui.metadata()
    first, second, *_ = rows.values()
    assert re.match(r"orders can be recovered to \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC from r2 and b2", first)
    for column in ("store", "from", "to", "RPO", "gaps", "base backups", "segments", "bytes"):
        assert column in second
    assert re.search(r"any store.*\br2\b.*\bb2\b", second, re.DOTALL)
    ui.page.locator(f"tr:has(:text-is('{list(rows)[2]}')) img").last.wait_for()
    for store in ("r2", "b2"):
        assert re.match(r"about .* s: plan .*; by .* on this host", rows[f"{store}: a restore takes"])
    ui.picture("recovery-window")


def test_an_idle_cluster_is_not_said_to_lose_anything(ui: Screen) -> None:
    """Minutes after the last commit the RPO of each store is still zero."""
    ui.open(WINDOW.format(cluster="orders"), "nothing committed since")
    assert ui.metadata()  # the table has no RPO other than 0
    assert not re.search(r"at most|not there yet", ui.text)


def test_the_checks_of_the_window_are_about_the_window(ui: Screen) -> None:
    """Its checks say what can be restored from each store and that no gap is inside; drills are checked elsewhere."""
    ui.open(WINDOW.format(cluster="orders") + "?view=checks", "Checks (")
    assert "last_drill" not in ui.text
    assert "r2" in ui.text
    assert "b2" in ui.text
    assert "gap" in ui.text
    assert "Failed" not in ui.text


def test_a_cluster_without_a_drill_is_not_red(fleet_ui: Screen, fleet: Fleet) -> None:
    """The drill's checks stand on recovery_drill, and no drill that is not due yet is no error."""
    fleet_ui.open("/assets/orders/recovery_drill?view=checks", "last_drill_r2", "last_drill_b2")
    fleet_ui.open(WINDOW.format(cluster="orders") + "?view=checks", "Checks (")
    assert "Failed" not in fleet_ui.text


def test_a_store_that_is_down_does_not_take_the_answer_away(fleet_ui: Screen) -> None:
    """The page says to which moment the other store leads, that nothing is lost there, and that r2 reaches less far."""
    fleet_ui.open(WINDOW.format(cluster="billing"), "billing can be recovered to")
    assert re.search(r"from b2, nothing committed since; from r2 to .* only", fleet_ui.metadata_value(0))


def test_what_needs_a_person_is_not_only_in_the_terminal(fleet_ui: Screen, fleet: Fleet) -> None:
    """The asset open_alerts lists the store that is down, with the command that mends it."""
    fleet_ui.open("/assets/billing/open_alerts")
    wait(fleet.dagster, lambda: _is_listed(fleet_ui, "store_down r2"))
    fleet_ui.see("what mends it")
    fleet_ui.picture("open-alerts")


def _is_listed(ui: Screen, text: str) -> bool:
    ui.page.reload()
    return text in " ".join(ui.metadata().values())


def test_a_past_gap_is_not_forgotten(fleet_ui: Screen, fleet: Fleet) -> None:
    """The check of b2 names the gap that a base backup made past: how many segments, and from where to refill."""
    fleet_ui.open("/assets/users/wal_segment/b2?view=checks", "no_gap")
    fleet_ui.click("no_gap")
    fleet_ui.see(re.compile(rf"past gap.*{len(fleet.gone)} segments.*refillable from r2"))
