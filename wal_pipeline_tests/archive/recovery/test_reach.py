"""How far a window reaches, from what is known of the WAL beyond its end."""

from dataclasses import replace
from datetime import timedelta

import pytest

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.archive.recovery.reach import CommitsBeyond, WrittenEnd, reach_of, recorded_beyond
from wal_pipeline.archive.recovery.window import RecoveryWindow, recovery_windows
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.archive_worlds import backup, contents, day, day_segments, lsn, name

NOW = day(20)
NOTHING = CommitsBeyond(None, lsn(10))


@pytest.fixture
def window() -> RecoveryWindow:
    """Segments 2 to 9, whose last commit is of day 9.75."""
    [made] = recovery_windows(contents(day_segments(1, range(1, 10)), [backup("one", 1, 2.1, 3.5)]))
    return made


def test_an_idle_window_that_is_all_archived_does_not_end_with_its_last_commit(window: RecoveryWindow) -> None:
    """It reaches to when the server was asked, and nothing would be lost; the last commit is old all the same."""
    reach = reach_of(window, NOTHING, WrittenEnd(lsn(10), NOW), NOW)
    assert (reach.at, reach.is_at_least, reach.rpo_seconds, reach.rpo_is_bound) == (NOW, False, 0.0, False)
    assert reach.last_commit_age_seconds == timedelta(days=10.25).total_seconds()
    assert reach.lacks_nothing


def test_the_oldest_commit_that_is_missing_is_the_rpo_not_the_last_one_that_is_there(window: RecoveryWindow) -> None:
    """The window reaches to that commit."""
    reach = reach_of(window, CommitsBeyond(day(15), lsn(11)), WrittenEnd(lsn(12), NOW), NOW)
    assert (reach.at, reach.is_at_least) == (day(15), False)
    assert (reach.rpo_seconds, reach.rpo_is_bound) == (timedelta(days=5).total_seconds(), False)


@pytest.mark.parametrize("end", [None, WrittenEnd(lsn(11), NOW)], ids=["not asked", "not read"])
def test_what_was_not_looked_at_is_at_most(window: RecoveryWindow, end: WrittenEnd | None) -> None:
    """Neither a silent server nor WAL that cannot be read proves that nothing was committed."""
    reach = reach_of(window, NOTHING, end, NOW, unknown=None if end else "PostgreSQL did not answer")
    assert (reach.at, reach.is_at_least) == (day(9.75), True)
    assert (reach.rpo_seconds, reach.rpo_is_bound) == (timedelta(days=10.25).total_seconds(), True)
    beyond = "the WAL from 0/A00000 on, which is not archived, could not be read for commits"
    assert reach.unknown == (beyond if end else "PostgreSQL did not answer")


def test_a_base_backup_after_the_last_commit_is_not_outside_its_window() -> None:
    """The window reaches at least to its end, also where no commit is known at all."""
    files = [replace(one, first_commit_at=None, last_commit_at=None) for one in day_segments(1, range(1, 10))]
    [window] = recovery_windows(contents(files, [backup("one", 1, 2.1, 3.5), backup("two", 1, 6.1, 8.5)]))
    assert (window.latest_commit_at, window.reaches_at_least) == (None, day(8.5))
    reach = reach_of(window, NOTHING, None, NOW, unknown="-")
    assert (reach.at, reach.last_commit_age_seconds) == (day(8.5), None)


def test_a_clock_that_went_wrong_makes_no_bound_of_zero(window: RecoveryWindow) -> None:
    """A window that is dated in the future says nothing of what would be lost."""
    reach = reach_of(window, NOTHING, None, day(2))
    assert reach.rpo_seconds is None
    assert reach.unknown == "the last base backup or commit is dated in the future: a clock is or was wrong"


def test_segments_on_another_store_tell_what_this_one_lacks() -> None:
    """The first commit beyond b2's window is that of the next segment on r2; one without a commit is passed."""
    files = list(day_segments(1, range(1, 10)))
    files[6] = replace(files[6], first_commit_at=None, last_commit_at=None)
    archive = contents(
        files, [backup("one", 1, 2.1, 3.5)], stores=("r2", "b2"), missing={"b2": [name(1, n) for n in (7, 8, 9)]}
    )
    [window] = recovery_windows(archive, ["b2"])
    assert recorded_beyond(archive, window) == CommitsBeyond(day(8.25), lsn(8))
    files[6] = replace(files[6], commit_times=CommitTimes.UNKNOWN)
    archive = contents(
        files, [backup("one", 1, 2.1, 3.5)], stores=("r2", "b2"), missing={"b2": [name(1, n) for n in (7, 8, 9)]}
    )
    assert recorded_beyond(archive, window) == CommitsBeyond(None, Lsn(window.latest_lsn))
