"""Flow control: which stores take a file now, and when a slow store stops the others no longer."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.archive_push import flow_control
from wal_pipeline.commands.archive_push.backlog import Recorded
from wal_pipeline.commands.archive_push.flow_control import Admitted, Blocked, FlowControl, Overtaken, RunTime
from wal_pipeline.commands.archive_push.job import FileJob
from wal_pipeline.commands.archive_push.uploader import StoreUploader
from wal_pipeline.spool import SpoolFile
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.archive_scene import folder_store
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, name_of

BOTH = frozenset({"r2", "b2"})
MEMORY = 20 * SEGMENT_BYTES


def uploaders(folder: Path, width: int = 1) -> dict[str, StoreUploader]:
    return {
        name: StoreUploader(
            folder_store(name, folder / name), StoreState(name), width=width, read_back=True, max_backoff_seconds=300.0
        )
        for name in ("r2", "b2")
    }


def job(number: int, stores: frozenset[str]) -> FileJob:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    spooled = SpoolFile(require_file_name(name_of(number)), SEGMENT_BYTES, at, True, (0, number, SEGMENT_BYTES, 0))
    begun = FileJob(spooled, Recorded(), stores, 2 * SEGMENT_BYTES)
    begun.waiting = set(stores)
    return begun


class Ticks:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    found = Ticks()
    monkeypatch.setattr(flow_control.time, "monotonic", found)
    return found


def test_idle_stores_take_a_file_together(quick_folder: Path) -> None:
    """Every usable store takes it, so that it is compressed once."""
    flow = FlowControl(uploaders(quick_folder), MEMORY)
    assert flow.choose(SEGMENT_BYTES, BOTH, ()) == Admitted(BOTH)
    assert flow.choose(SEGMENT_BYTES, {"b2"}, {"r2"}) == Admitted(frozenset({"b2"}))


def test_a_file_that_every_store_has_is_admitted_for_none(quick_folder: Path) -> None:
    """It begins all the same: the stores are asked to confirm their copies."""
    assert FlowControl(uploaders(quick_folder), MEMORY).choose(SEGMENT_BYTES, (), ()) == Admitted(frozenset())


def test_a_full_store_blocks_until_another_one_starves(quick_folder: Path, ticks: Ticks) -> None:
    """A store with no room blocks the file; once another store stood idle for a second, that one goes on alone."""
    stores = uploaders(quick_folder)
    flow = FlowControl(stores, MEMORY)
    for number in range(1, 4):
        flow.begin(job(number, frozenset({"r2"})))
    assert flow.choose(SEGMENT_BYTES, BOTH, ()) == Blocked()
    for _ in range(20):
        ticks.now += 0.2
        last = flow.choose(SEGMENT_BYTES, BOTH, ())
    assert last == Admitted(frozenset({"b2"}))
    assert flow.behind == {"r2"}
    assert flow.choose(SEGMENT_BYTES, {"r2"}, ()) == Overtaken()


def test_a_store_that_has_caught_up_is_not_behind(quick_folder: Path, ticks: Ticks) -> None:
    """When nothing is under way to it any more, it takes files together with the others again."""
    flow = FlowControl(uploaders(quick_folder), MEMORY)
    slow = [job(number, frozenset({"r2"})) for number in range(1, 4)]
    for one in slow:
        flow.begin(one)
    flow.behind.add("r2")
    for one in slow:
        flow.end(one)
    assert flow.behind == set()
    assert flow.choose(SEGMENT_BYTES, BOTH, ()) == Admitted(BOTH)


def test_memory_bounds_what_is_in_flight_but_for_an_idle_store(quick_folder: Path) -> None:
    """A file that does not fit waits; a store with nothing to do gets one file in any case."""
    stores = uploaders(quick_folder, width=4)
    flow = FlowControl(stores, 3 * SEGMENT_BYTES)
    flow.begin(job(1, BOTH))
    assert flow.choose(SEGMENT_BYTES, BOTH, ()) == Blocked()
    assert flow.choose(100 * SEGMENT_BYTES, BOTH, ()) == Blocked()
    flow.done(flow._jobs[0], "b2")
    assert flow.choose(100 * SEGMENT_BYTES, {"b2"}, ()) == Admitted(frozenset({"b2"}))


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def runs_of_a_day(every_seconds: float, work_seconds: float, **limits: float) -> int:
    """Count the runs that a day of segments at equal distances makes, each with so much work."""
    wanted = {"work_seconds": 900.0, "age_seconds": 7200.0, "linger_seconds": 1800.0} | limits
    clock, runs, next_at = Clock(), 0, 0.0
    while next_at < 86_400:
        clock.now, runs = next_at, runs + 1
        run_time = RunTime(**wanted, monotonic=clock)
        while not run_time.is_over and not run_time.has_lingered(is_empty=True):
            is_busy = clock.now >= next_at
            clock.now += work_seconds if is_busy else min(1.0, next_at - clock.now)
            next_at += every_seconds if is_busy else 0
            run_time.note(idle=not is_busy)
        next_at = max(next_at, clock.now)
    return runs


@pytest.mark.parametrize("every_seconds", [15, 60, 300, 1000])
def test_a_quiet_cluster_does_not_make_a_run_for_each_segment(every_seconds: int) -> None:
    """A segment each five minutes made 288 runs a day, one each 15 s up to 5,760: a dozen or two are enough."""
    assert runs_of_a_day(every_seconds, 1.5) <= 13


def test_a_cluster_without_a_pause_still_ends_its_runs() -> None:
    """A run of work is as long as before: Dagster's UI shows all that one run did."""
    assert 90 <= runs_of_a_day(1.0, 1.0) <= 97


def test_a_run_does_not_linger_over_files_that_it_could_not_archive() -> None:
    """A store that fails, or a file that is stuck, shows in a run that ended, and the next run tries again."""
    clock = Clock()
    run_time = RunTime(work_seconds=900, age_seconds=7200, linger_seconds=1800, monotonic=clock)
    clock.now = 10.0
    assert run_time.has_lingered(is_empty=False)
    assert not run_time.has_lingered(is_empty=True)


def test_a_shorter_linger_of_a_persons_choice_counts_in_both_cases() -> None:
    """``wal-pipeline archive`` does not wait at all."""
    clock = Clock()
    run_time = RunTime(work_seconds=900, age_seconds=7200, linger_seconds=0, monotonic=clock)
    assert run_time.has_lingered(is_empty=False)
    assert run_time.has_lingered(is_empty=True)
