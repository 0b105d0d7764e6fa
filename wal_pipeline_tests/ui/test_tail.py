"""Tests that the UI shows how far each store has the open segment, and whether the promise is kept."""

import re

import pytest

from testbed.dagster_instance import DagsterInstance
from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.cluster import STORES, WatchedCluster
from wal_pipeline_tests.support.ui.history import wait

pytestmark = pytest.mark.ui
TAIL = "/assets/shop/wal_tail/{store}"


@pytest.mark.parametrize("store", STORES)
def test_the_first_row_says_how_far_the_store_is_behind(
    screen: Screen, shop: tuple[WatchedCluster, DagsterInstance], store: str
) -> None:
    """Then come the numbers that are plotted; no value is one that nobody reads, and nobody is told 'never'."""

    def is_shown() -> bool:
        screen.open(TAIL.format(store=store), "Timestamp")
        return "running" not in screen.metadata_value(0) and " behind" in screen.metadata_value(0)

    wait(shop[1], is_shown)
    rows = screen.metadata()
    assert re.match(rf"{store} is (0 s|\d+\.\d s) behind; in the last hour p50 ", next(iter(rows.values())))
    assert {"seconds_behind", "pieces", "holds", "shipped_to", "last_commit_at"} <= rows.keys()
    for key, value in rows.items():
        assert not re.search(r"\d\.\d{4}", value), (key, value)
    assert not re.search("never (materialized|observed)", screen.text, re.IGNORECASE)
    if store == "r2":
        screen.picture("wal-tail")


@pytest.mark.parametrize("store", STORES)
def test_the_check_says_whether_the_promise_is_kept(screen: Screen, store: str) -> None:
    """It stands on the tail's own page, by its name, with the sentence."""
    screen.open(TAIL.format(store=store) + "?view=checks", "on_time")
    screen.see(re.compile(r"promised 2\.0 s"))
    assert "Failed" not in screen.text


def test_nobody_asks_whose_the_tail_is_and_what_updates_it(screen: Screen) -> None:
    """The page has owner, kinds, and both sensors."""
    screen.open(TAIL.format(store="r2"), "Definition")
    screen.see("Owners")
    screen.see("Kinds")
    screen.see("2 sensors")  # the one that keeps the run at work, and the one that looks each minute
    assert "No automations found" not in screen.text


def test_the_window_ends_with_the_tail(screen: Screen, shop: tuple[WatchedCluster, DagsterInstance]) -> None:
    """The newest commit can be recovered though its segment is not archived, and the table's RPO is zero."""

    def is_shown() -> bool:
        screen.open("/assets/shop/recovery_window", "Timestamp")
        return "nothing committed since" in screen.metadata_value(0)

    wait(shop[1], is_shown)
    assert "inside '" in " ".join(screen.metadata().values())
