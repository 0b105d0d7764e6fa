"""Tests when a started archiving run counts as lost."""

import dagster as dg
import pytest

from wal_pipeline.orchestration.sensors.lost_run import LostRunWatch, process_lives

RUN = dg.DagsterRun(job_name="archive_wal", run_id="one", status=dg.DagsterRunStatus.STARTED)
OTHER = dg.DagsterRun(job_name="archive_wal", run_id="two", status=dg.DagsterRunStatus.STARTED)


def look(watch: LostRunWatch, now: float, *, run: dg.DagsterRun = RUN, locked: bool = False) -> bool:
    """Look at a run whose process does or does not hold the lock."""
    return watch.is_lost(run, lambda: locked, now)


def test_a_run_that_never_holds_the_lock_is_lost_at_the_limit() -> None:
    """The run is lost at the limit, and not a second before."""
    watch = LostRunWatch(30)
    assert [look(watch, 1000 + second) for second in (0, 10, 29.9, 30)] == [False, False, False, True]


def test_a_run_that_holds_the_lock_is_never_lost() -> None:
    """A run with the lock is not lost, however long it runs and however rare the looks are."""
    watch = LostRunWatch(30)
    assert not any(look(watch, 1000 + second, locked=True) for second in (0, 5, 29, 61, 62, 500, 5000))


def test_the_count_begins_when_the_lock_was_last_seen() -> None:
    """A killed run is lost one limit after it was last seen with the lock."""
    watch = LostRunWatch(30)
    assert not look(watch, 1000)
    assert not look(watch, 1100, locked=True)
    assert not look(watch, 1129)
    assert look(watch, 1130)


def test_each_run_has_a_count_of_its_own() -> None:
    """The count of one run does not pass to the next."""
    watch = LostRunWatch(30)
    assert not look(watch, 1000)
    assert not look(watch, 1100, run=OTHER)
    assert look(watch, 1130, run=OTHER)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING])
def test_only_a_run_with_a_process_can_be_lost(status: dg.DagsterRunStatus) -> None:
    """Dagster's run monitoring has limits of its own for the others, such as one that waits for a warm worker."""
    watch = LostRunWatch(30)
    run = RUN.with_status(status)
    assert not look(watch, 1000, run=run)
    assert not look(watch, 9000, run=run)


def test_a_run_that_was_starting_in_a_code_server_can_be_lost() -> None:
    """Where the code server ended too, nobody waits for the three minutes that Dagster gives a run to start."""
    watch = LostRunWatch(30)
    told = RUN.with_status(dg.DagsterRunStatus.STARTING).with_tags(
        {".dagster/grpc_info": '{"host": "127.0.0.1", "port": 1}'}
    )
    assert not look(watch, 1000, run=told)
    assert not look(watch, 1029, run=told)
    assert look(watch, 1030, run=told)


def test_a_run_that_lives_has_longer_to_close() -> None:
    """A living run without the lock updates its records, and is lost only after ten limits."""
    alive = LostRunWatch(30, is_alive=lambda run: run is RUN)
    assert not look(alive, 1000)
    assert not look(alive, 1035)
    assert not look(alive, 1299)
    assert look(alive, 1300)
    dies = LostRunWatch(30, is_alive=lambda _run: False)
    assert not look(dies, 1000)
    assert look(dies, 1030)


@pytest.mark.parametrize(
    "info", [None, "no json", "{}", '{"host": "127.0.0.1", "port": 1}', '{"host": "127.0.0.1", "socket": "/none"}']
)
def test_a_process_that_nobody_tells_of_is_not_alive(info: str | None) -> None:
    """Without a code server that answers, the lock alone decides."""
    assert not process_lives(RUN.with_tags({} if info is None else {".dagster/grpc_info": info}))


def test_the_lock_is_left_alone_while_a_run_begins() -> None:
    """A look takes the lock for a moment, so none is made before half of the limit."""
    watch = LostRunWatch(30)

    def forbidden() -> bool:
        raise AssertionError("looked at the lock")

    assert not watch.is_lost(RUN, forbidden, 1000)
    assert not watch.is_lost(RUN, forbidden, 1014.9)
    with pytest.raises(AssertionError, match="looked at the lock"):
        watch.is_lost(RUN, forbidden, 1015)


def test_the_next_tick_takes_up_the_count() -> None:
    """The cursor carries run and moment; one that cannot be read begins anew."""
    watch = LostRunWatch(30)
    look(watch, 1000)
    assert look(LostRunWatch.from_cursor(watch.cursor, 30), 1030)
    for unreadable in (None, "", "nonsense", "[]", '{"run_id": "one"}', "7"):
        assert not look(LostRunWatch.from_cursor(unreadable, 30), 1030)


def test_a_clock_that_was_set_back_begins_the_count_again() -> None:
    """No run is lost because of a clock."""
    watch = LostRunWatch(30)
    look(watch, 5000)
    assert not look(watch, 1000)
    assert look(watch, 1030)
