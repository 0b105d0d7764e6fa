"""Workers take items in order, at the same time, and the first error ends them all."""

import threading

import pytest

from wal_pipeline.commands.backup.local.workers import work_through


def test_every_item_is_worked_once_by_several_threads_at_once() -> None:
    """Two workers meet at a barrier, which one alone would never pass."""
    barrier, done, ticks = threading.Barrier(2), [], []

    def work(item: int) -> None:
        barrier.wait(timeout=30)
        done.append(item)

    work_through(range(6), work, workers=2, stop=lambda: None, tick=lambda: ticks.append(1), tick_seconds=0.01)
    assert sorted(done) == list(range(6))
    assert ticks


def test_no_item_is_no_work() -> None:
    """The tick is called all the same."""
    ticks: list[int] = []
    work_through([], pytest.fail, workers=3, stop=pytest.fail, tick=lambda: ticks.append(1))
    assert ticks


def test_the_first_error_ends_the_others_and_is_raised() -> None:
    """The one that goes on is told to stop, and its own error is not the one that comes out."""
    stopped, begun = threading.Event(), []

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise KeyError("first")
        assert stopped.wait(timeout=30)
        raise ValueError("stopped")

    with pytest.raises(KeyError, match="first"):
        work_through(range(99), work, workers=2, stop=stopped.set, tick=lambda: None, tick_seconds=0.01)
    assert len(begun) <= 3


def test_an_error_of_the_tick_ends_the_work() -> None:
    """Such as that of a server that is not in backup mode any more."""
    stopped = threading.Event()

    def tick() -> None:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        work_through([1, 2], lambda _: stopped.wait(30), workers=1, stop=stopped.set, tick=tick, tick_seconds=0.01)
    assert stopped.is_set()
