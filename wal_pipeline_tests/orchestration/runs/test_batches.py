"""Tests when the thread writes its batches, and which errors the caller gets."""

import threading
import time
from collections.abc import Sequence

import pytest

from wal_pipeline.orchestration.runs.batches import Batches


class Written:
    """The written batches and their times. ``gate`` blocks the writes."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.at: list[float] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch: Sequence[int]) -> None:
        self.gate.wait(10)
        self.batches.append(list(batch))
        self.at.append(time.monotonic())

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while sum(map(len, self.batches)) < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def fail(_batch: Sequence[int]) -> None:
    raise OSError("disk full")


def test_an_item_is_written_though_nothing_comes_after_it() -> None:
    """An item is written after the hold, also while a run lingers for a long time."""
    written = Written()
    with Batches(written, hold_seconds=0.2) as batches:
        begun = time.monotonic()
        batches.add(1)
        written.wait(1)
    assert 0.15 < written.at[0] - begun < 2


def test_what_comes_close_together_is_written_at_once_and_in_order() -> None:
    """A batch has at most ``most`` items, and the next batch follows without another wait."""
    written = Written()
    with Batches(written, hold_seconds=60, most=10) as batches:
        for number in range(25):
            batches.add(number)
        written.wait(20)
    assert written.batches == [list(range(10)), list(range(10, 20)), list(range(20, 25))]


def test_the_end_writes_what_is_held() -> None:
    """The end writes the held items at once, and nothing where there are none."""
    written = Written()
    begun = time.monotonic()
    with Batches(written, hold_seconds=60) as batches:
        batches.add(1)
    with Batches(written):
        pass
    assert written.batches == [[1]]
    assert time.monotonic() - begun < 10


def test_the_caller_waits_where_too_much_is_not_written_yet() -> None:
    """The caller waits, so that a slow disk makes neither memory nor loss unbounded."""
    written = Written()
    written.gate.clear()
    with Batches(written, hold_seconds=0.01, most=1, waiting=2) as batches:
        adder = threading.Thread(target=lambda: [batches.add(number) for number in range(4)], daemon=True)
        adder.start()
        adder.join(0.3)
        assert adder.is_alive()
        written.gate.set()
        adder.join(10)
        assert not adder.is_alive()
    assert written.batches == [[0], [1], [2], [3]]


def test_a_write_that_fails_is_heard_of_with_the_next_item() -> None:
    """The caller gets the error with its next item and at its end."""
    with pytest.raises(OSError, match="disk full"), Batches(fail, hold_seconds=0.01) as batches:
        for number in range(1000):
            batches.add(number)
            time.sleep(0.01)


def test_a_write_that_fails_at_the_end_is_heard_of() -> None:
    """The end raises the error of the last write, unless the caller itself failed."""
    with pytest.raises(OSError, match="disk full"), Batches(fail, hold_seconds=60) as batches:
        batches.add(1)
    with pytest.raises(ValueError, match="the caller's"), Batches(fail, hold_seconds=60) as batches:
        batches.add(1)
        raise ValueError("the caller's")
