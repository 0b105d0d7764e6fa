"""Tests what the looks at a server say: how complete a tail is, and how late its pieces were."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.commands.ship.looks import BehindTimes, Look, WalLooks
from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.wal.lsn import Lsn

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def look(lsn: int, second: float, *, timeline: int = 1, identifier: int = 7) -> Look:
    """Return a look in some second, at which so much was flushed."""
    seen = FlushedWal(Lsn(lsn), NOON + timedelta(seconds=second), timeline, identifier, 1 << 20, False, 18)
    return Look(seen, second)


def looks_of(*added: Look) -> WalLooks:
    """Return the looks after these."""
    looks = WalLooks()
    for one in added:
        looks.add(one)
    return looks


@pytest.mark.parametrize(
    ("lsn", "second"), [(50, None), (100, 0), (150, 0), (200, 2), (299, 2), (300, 3), (1000, 3)], ids=str
)
def test_a_place_is_complete_for_the_last_look_that_saw_no_more(lsn: int, second: float | None) -> None:
    """What was flushed behind the place was flushed after that look. A quiet server moves the moment on."""
    looks = looks_of(look(100, 0), look(200, 1), look(200, 2), look(300, 3))
    found = looks.complete_at(1, Lsn(lsn))
    assert (None if found is None else found.monotonic) == second


def test_a_standby_proves_no_moment() -> None:
    """A primary's commits may be acknowledged before a standby has them, so its own clock says nothing of them."""
    seen = look(100, 1)
    assert seen.acknowledged_at == seen.seen.at
    assert Look(replace(seen.seen, is_standby=True), 1).acknowledged_at is None


@pytest.mark.parametrize(
    "other", [look(90, 5), look(400, 5, timeline=2), look(400, 5, identifier=8)], ids=["back", "promoted", "other"]
)
def test_another_history_begins_anew(other: Look) -> None:
    """A server that was set back, was promoted or is another one says nothing of the looks before."""
    looks = looks_of(look(100, 0), look(200, 1), other)
    assert looks.complete_at(other.seen.timeline, Lsn(other.seen.lsn - 1)) is None
    assert looks.last == other


def test_another_timelines_place_is_not_compared() -> None:
    """An LSN alone does not say where in the history a place is."""
    assert looks_of(look(100, 0)).complete_at(2, Lsn(500)) is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 60))
def test_the_moment_is_never_later_than_is_proven(steps: list[int], lsn: int) -> None:
    """Of all looks the one that is returned saw nothing behind the place, and every later one did."""
    seen = [look(sum(steps[: number + 1]), number) for number in range(len(steps))]
    found = looks_of(*seen).complete_at(1, Lsn(lsn))
    proven = [one for one in seen if one.seen.lsn <= lsn]
    assert found == (proven[-1] if proven else None)


def test_a_thread_that_waits_is_woken_by_a_look() -> None:
    """It returns with a new number; without a look it returns with the old one in time."""
    looks = WalLooks()
    serial = looks.wait(-1, 0)
    assert looks.wait(serial, 0.01) == serial
    waiting = threading.Thread(target=lambda: looks.wait(serial, 60))
    waiting.start()
    looks.add(look(100, 0))
    waiting.join(60)
    assert not waiting.is_alive()
    assert looks.wait(serial, 0) != serial


def test_late_pieces_are_counted_for_an_hour() -> None:
    """Median and 99th percentile are values that were measured; older ones do not count."""
    now = 0.0
    times = BehindTimes(lambda: now)
    assert times.quantiles() == (None, None)
    for number in range(1, 101):
        times.add(float(number))
    assert times.quantiles() == (50.0, 99.0)
    now = 3601.0
    times.add(7.0)
    assert times.quantiles() == (7.0, 7.0)
