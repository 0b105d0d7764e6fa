"""Work on many things at the same time: all of it is done, or the first failure ends it."""

import threading
from concurrent.futures import CancelledError

import pytest

from wal_pipeline.commands.restore.files.workers import Workers, volumes_at_once


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_each_thing_is_worked_on_once(count: int) -> None:
    """With any number of workers."""
    done: list[int] = []
    Workers[int](count, "test").run(done.append, range(100))
    assert sorted(done) == list(range(100))


def test_as_many_work_at_once_as_there_are_workers() -> None:
    """Each waits for the others."""
    barrier = threading.Barrier(3, timeout=60)
    Workers[int](3, "test").run(lambda _: barrier.wait(), range(3))
    assert barrier.n_waiting == 0


def test_the_first_failure_ends_the_others() -> None:
    """A worker in the middle of long work is ended where it asks whether to go on; nothing new is begun."""
    team = Workers[int](2, "test")
    begun: list[int] = []
    failed = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number == 1:
            failed.set()
            raise ValueError("no")
        assert failed.wait(60)
        while True:
            team.go_on()

    with pytest.raises(ValueError, match="no"):
        team.run(work, range(1000))
    assert sorted(begun) == [0, 1]


def test_a_list_that_cannot_be_made_is_an_error() -> None:
    """What is worked on may be found only on the way."""

    def items() -> "list[int]":
        raise OSError(5, "no disk")

    with pytest.raises(OSError, match="no disk"):
        Workers[int](2, "test").run(lambda _: None, (one for one in items()))


def test_work_that_is_given_up_by_itself_is_a_failure() -> None:
    """Not a silent end."""

    def work(_: int) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        Workers[int](2, "test").run(work, range(5))


def test_only_so_many_hold_a_turn_while_the_others_work_ahead() -> None:
    """Volumes are fetched while others are opened, and no more than the workers open any."""
    team = Workers[int](volumes_at_once(2), "test")
    turns = threading.Semaphore(2)
    everybody = threading.Barrier(4, timeout=60)
    lock = threading.Lock()
    opening: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        if number < everybody.parties:
            everybody.wait()  # as many fetch at once as there are volumes
        with team.turn(turns):
            with lock:
                opening.append(number)
                most.append(len(opening))
            with lock:
                opening.remove(number)

    team.run(work, range(50))
    assert len(most) == 50
    assert max(most) <= 2


def test_whoever_waits_for_a_turn_is_given_up_with_the_others() -> None:
    """A turn that never comes keeps no failed restore from ending."""
    team = Workers[int](2, "test")
    turns = threading.Semaphore(0)
    waiting = threading.Event()

    def work(number: int) -> None:
        if number:
            assert waiting.wait(60)
            raise ValueError("no")
        waiting.set()
        with team.turn(turns):
            pass

    with pytest.raises(ValueError, match="no"):
        team.run(work, range(2))
