"""Tests what 'status' prints in a terminal of 80 columns, at moments of a known history, and keeps pictures of it."""

import re

import pytest
from rich.text import Text

from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.history import LATER_NOTE, NOTE, Fleet, Orders, wait

pytestmark = pytest.mark.ui
COLUMNS = 80


def shown(screen: Screen, name: str, output: str) -> str:
    """Keep a picture of the output, require that no line is too long, and return its text."""
    screen.terminal_picture(name, output, columns=COLUMNS)
    text = Text.from_ansi(output).plain
    assert max(len(line) for line in text.splitlines()) <= COLUMNS, text
    return text


def test_a_new_cluster_is_not_said_to_be_lost(ui: Screen, orders: Orders) -> None:
    """Right after the first base backup all is well: recoverable to its end, nothing committed since."""
    text = shown(ui, "status-new", orders.screens["new"])
    assert " OK " in text
    assert "nothing can be recovered" not in text


def test_a_healthy_cluster_is_not_red(ui: Screen, orders: Orders) -> None:
    """After commits that are on both stores nothing would be lost."""
    assert " OK " in shown(ui, "status-healthy", orders.screens["healthy"])


def test_an_idle_cluster_is_not_said_to_lose_more_each_minute(ui: Screen, orders: Orders) -> None:
    """A cluster without commits has an RPO of zero, whatever the age of its last one."""
    text = shown(ui, "status-idle", orders.cluster.terminal("status"))
    assert re.search(r"RPO +0 s", text)


def test_the_list_of_base_backups_does_not_break_words(ui: Screen, orders: Orders) -> None:
    """Each has its method, its stores and its note below its id, in a terminal of 80 columns."""
    text = shown(ui, "base-backups", orders.cluster.terminal("list", "--base-backups"))
    assert text.count("full, local\n") == text.count("r2: verified, restorable\n") == 2
    assert f"\n  note: {NOTE}\n" in text


def test_how_long_a_restore_takes_is_not_left_out(orders: Orders) -> None:
    """After a drill the screen predicts it for each store, and names method and note of the newest base backup."""
    text = " ".join(Text.from_ansi(orders.cluster.terminal("status")).plain.split())
    assert re.search(r"RTO from r2 about \S+ s: .*RTO from b2 about \S+ s: ", text)
    assert re.search(rf"base backup full, local, .* old, on b2 and r2 \({LATER_NOTE}\); 2 in all", text)


def test_a_store_that_is_down_is_named(fleet_ui: Screen, fleet: Fleet) -> None:
    """The screen names the store, once three tries have failed, and says what can be recovered without it."""
    billing = fleet.clusters["billing"]
    wait(fleet.dagster, lambda: "store_down r2" in billing.command("alerts", expect=(0, 1, 2)))
    text = shown(fleet_ui, "status-one-store-down", billing.terminal("status"))
    assert "from b2, nothing committed since" in " ".join(text.split())
    assert "store_down r2" in text


def test_a_past_gap_is_not_forgotten(fleet_ui: Screen, fleet: Fleet) -> None:
    """The screen counts the gap on b2 that is past, and the bar has a mark."""
    text = shown(fleet_ui, "status-gap", fleet.screens["users"])
    assert "gaps: 1 past" in text
    assert any("░" in line for line in text.splitlines() if line.startswith("b2")), text
