"""Recovery windows."""

from hypothesis import given, settings

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.archive.recovery.window import RecoveryWindow, WindowEnd, recovery_windows, windows_by_store
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.timeline import TimelineHistory
from wal_pipeline_tests.support import archive_oracle as oracle
from wal_pipeline_tests.support.archive_worlds import (
    SIZE,
    SYSTEM,
    World,
    backup,
    contents,
    day,
    day_segments,
    history,
    lsn,
    name,
    segment,
    worlds,
)


def test_one_base_backup_and_whole_wal_make_one_window() -> None:
    """It begins where the base backup stops and ends with the last commit."""
    archive = contents(day_segments(1, range(1, 10)), [backup("one", 1, 2.1, 3.5)])
    assert recovery_windows(archive, ["r2"]) == (
        RecoveryWindow(
            store="r2",
            system_identifier=SYSTEM,
            timeline=1,
            timelines=(1,),
            backup_ids=("one",),
            earliest_at=day(3.5),
            earliest_lsn=lsn(3.5),
            latest_commit_at=day(9.75),
            latest_commit_at_least=day(9.75),
            commit_times_known=True,
            reaches_at_least=day(9.75),
            latest_lsn=lsn(10),
            first_segment=name(1, 2),
            last_segment=name(1, 9),
            segments=8,
            ended_by=WindowEnd.END,
            first_missing=None,
            left_at_lsn=None,
        ),
    )


def test_a_base_backup_without_its_wal_makes_no_window() -> None:
    """A segment between its start and its stop is missing."""
    archive = contents(day_segments(1, range(1, 10)), [backup("one", 1, 2.1, 4.5)], missing={"r2": [name(1, 3)]})
    assert recovery_windows(archive) == ()


def test_a_stop_at_a_boundary_does_not_need_the_next_segment() -> None:
    """The stop LSN is the first byte that is not needed."""
    archive = contents(day_segments(1, range(1, 4)), [backup("one", 1, 2.1, 4.0)])
    assert [window.last_segment for window in recovery_windows(archive)] == [name(1, 3)]


def test_base_backups_on_one_continuous_path_share_a_window() -> None:
    """It runs from the earliest of them."""
    archive = contents(day_segments(1, range(1, 10)), [backup("two", 1, 6.1, 6.5), backup("one", 1, 2.1, 2.5)])
    (window,) = recovery_windows(archive)
    assert (window.backup_ids, window.earliest_at) == (("one", "two"), day(2.5))


def test_a_gap_ends_a_window_and_a_later_base_backup_begins_another() -> None:
    """Both are listed; the first says what is missing."""
    archive = contents(
        day_segments(1, range(1, 10)),
        [backup("one", 1, 2.1, 2.5), backup("two", 1, 7.1, 7.5)],
        missing={"r2": [name(1, 5)]},
    )
    first, second = recovery_windows(archive)
    assert (first.latest_commit_at, first.ended_by, first.first_missing) == (day(4.75), WindowEnd.GAP, name(1, 5))
    assert (second.earliest_at, second.ended_by, second.first_missing) == (day(7.5), WindowEnd.END, None)


def test_a_switch_of_timelines_is_no_gap() -> None:
    """The child's first segment holds the parent's part of it; the parent's exists only as a partial one."""
    archive = contents(
        [*day_segments(1, range(1, 5)), *day_segments(2, range(5, 9))],
        [backup("one", 1, 2.1, 2.5)],
        histories=[history(2, 1, 5.3)],
    )
    (window,) = recovery_windows(archive)
    assert (window.timeline, window.timelines, window.latest_commit_at) == (2, (1, 2), day(8.75))
    assert (window.ended_by, window.left_at_lsn) == (WindowEnd.END, None)


def test_an_abandoned_branch_is_its_own_window() -> None:
    """It says at which LSN it left the path to the newest timeline."""
    archive = contents(
        [*day_segments(1, range(1, 8)), *day_segments(2, range(5, 9))],
        [backup("one", 1, 2.1, 2.5)],
        histories=[history(2, 1, 5.3)],
    )
    branch, current = recovery_windows(archive)
    assert (branch.timeline, branch.latest_commit_at, branch.left_at_lsn) == (1, day(7.75), lsn(5.3))
    assert (current.timeline, current.latest_commit_at, current.left_at_lsn) == (2, day(8.75), None)


def test_a_switch_lost_in_a_gap_ends_the_parents_window_by_a_gap() -> None:
    """The child's first segment is missing: nothing says that on the parent's own path."""
    archive = contents(
        [*day_segments(1, range(1, 5)), *day_segments(2, range(6, 9))],
        [backup("one", 1, 2.1, 2.5)],
        histories=[history(2, 1, 5.3)],
    )
    (window,) = recovery_windows(archive)
    assert (window.timeline, window.ended_by, window.first_missing) == (1, WindowEnd.GAP, name(2, 5))


def test_without_its_history_file_a_timeline_cannot_be_followed() -> None:
    """The store has the child's segments, but PostgreSQL would not find the timeline."""
    archive = contents(
        [*day_segments(1, range(1, 5)), *day_segments(2, range(5, 9))],
        [backup("one", 1, 2.1, 2.5)],
        histories=[history(2, 1, 5.3)],
        missing={"r2": ["00000002.history"]},
    )
    assert [window.timelines for window in recovery_windows(archive)] == [(1,)]


def test_the_switches_of_a_grandchild_need_only_its_own_history_file() -> None:
    """A history file tells the whole way."""
    child = history(2, 1, 5.3)
    archive = contents(
        [*day_segments(1, range(1, 5)), *day_segments(2, range(5, 9))],
        [backup("one", 1, 2.1, 2.5)],
        histories=[child, history(3, child, 9.2)],
        missing={"r2": ["00000002.history"]},
    )
    assert [window.timelines for window in recovery_windows(archive)] == [(1, 2)]


def test_an_incremental_base_backup_needs_its_whole_chain() -> None:
    """The parent is on the other store only."""
    full, incremental = backup("full", 1, 2.1, 2.5), backup("incremental", 1, 4.1, 4.5, parent="full")
    archive = contents(day_segments(1, range(1, 8)), {full: ["b2"], incremental: ["r2", "b2"]}, stores=["r2", "b2"])
    windows = windows_by_store(archive)
    assert windows["r2"] == ()
    assert [window.backup_ids for window in windows["b2"]] == [("full", "incremental")]


def test_all_stores_together_fill_each_others_gaps() -> None:
    """A file counts if any store has it."""
    archive = contents(
        day_segments(1, range(1, 10)),
        [backup("one", 1, 2.1, 2.5)],
        missing={"r2": [name(1, 5)], "b2": [name(1, 7)]},
        stores=["r2", "b2"],
    )
    windows = windows_by_store(archive)
    assert {store: [window.latest_commit_at for window in found] for store, found in windows.items()} == {
        "r2": [day(4.75)],
        "b2": [day(6.75)],
        None: [day(9.75)],
    }


def test_unknown_commit_times_at_the_end_are_said_with_a_lower_bound() -> None:
    """Nothing is guessed."""
    files = [*day_segments(1, range(1, 5)), segment(1, 5, day(6), times=CommitTimes.UNKNOWN)]
    (window,) = recovery_windows(contents(files, [backup("one", 1, 2.1, 2.5)]))
    assert (window.latest_commit_at, window.latest_commit_at_least, window.commit_times_known) == (
        None,
        day(4.75),
        False,
    )


def test_unknown_commit_times_before_a_known_commit_do_no_harm() -> None:
    """The last commit is known all the same."""
    files = [segment(1, 5, day(6), times=CommitTimes.UNKNOWN), *day_segments(1, [2, 3, 4, 6])]
    (window,) = recovery_windows(contents(files, [backup("one", 1, 2.1, 2.5)]))
    assert (window.latest_commit_at, window.commit_times_known) == (day(6.75), True)


def test_a_copy_without_a_record_counts_with_unknown_commit_times() -> None:
    """The stores are the truth."""
    archive = contents(day_segments(1, range(1, 5)), [backup("one", 1, 2.1, 2.5)])
    copies = {"r2": [*archive.copies["r2"], name(1, 5)]}
    archive = type(archive).of(SYSTEM, files=archive.files.values(), copies=copies, backups=archive.backups.values())
    (window,) = recovery_windows(archive)
    assert (window.last_segment, window.commit_times_known) == (name(1, 5), False)


def test_segments_of_64_mb_are_numbered_by_their_own_size() -> None:
    """A log holds 64 of them: the name after ...0000003F is that of the next log."""
    size = 64 << 20
    names = ["00000001000000000000003F", "000000010000000100000000"]
    one = backup("one", 1, 1, 1.5)
    fields = {slot: getattr(one, slot) for slot in one.__slots__}
    fields |= {"wal_segment_size": size, "start_lsn": Lsn(63 * size + 40), "stop_lsn": Lsn(63 * size + 400)}
    held = type(one)(**fields)
    archive = type(contents([])).of(
        SYSTEM,
        files=[],
        copies={"r2": names},
        backups=[type(next(iter(contents([], [one]).backups.values())))(held, frozenset(["r2"]))],
    )
    assert [(w.first_segment, w.last_segment) for w in recovery_windows(archive)] == [(names[0], names[1])]


def test_another_clusters_records_are_left_out() -> None:
    """One system identifier at a time."""
    files = [*day_segments(1, range(1, 4)), segment(1, 4, day(5), system_identifier=SYSTEM + 1)]
    archive = contents(files)
    assert name(1, 4) not in archive.files


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_the_windows_are_what_walking_finds(world: World) -> None:
    """Per store and for all, each window reaches as far as the walk from its base backup, to the same last commit."""
    for store, windows in windows_by_store(world.contents).items():
        stores = world.contents.stores if store is None else (store,)
        walked = oracle.walks(world.contents, oracle.holding(world.contents, stores))
        assert _reached(world, windows) == oracle.longest(walked)
        for window in windows:
            start = min(world.contents.backups[key].backup.start_lsn for key in window.backup_ids) // SIZE
            names = _names(world, window, start)
            commits = [at for one in names if (at := oracle.last_commit(world.contents, one)) is not None]
            assert window.latest_commit_at_least == (commits[-1] if commits else None)


@settings(max_examples=80, deadline=None)
@given(worlds())
def test_a_window_begins_with_the_first_base_backup_to_become_consistent(world: World) -> None:
    """Its time and its LSN are those of the base backup that stopped first."""
    for window in recovery_windows(world.contents):
        stops = [world.contents.backups[key].backup for key in window.backup_ids]
        assert window.earliest_lsn == min(one.stop_lsn for one in stops)
        assert window.earliest_at in {one.finished_at for one in stops if one.stop_lsn == window.earliest_lsn}


def _reached(world: World, windows: tuple[RecoveryWindow, ...]) -> set[tuple[str, tuple[str, ...]]]:
    return {
        (key, _names(world, window, world.contents.backups[key].backup.start_lsn // SIZE))
        for window in windows
        for key in window.backup_ids
    }


def _names(world: World, window: RecoveryWindow, start: int) -> tuple[str, ...]:
    way = world.contents.histories.get(window.timeline, TimelineHistory(window.timeline))
    numbers = range(start, window.latest_lsn // SIZE)
    return tuple(way.segment_candidates(number, SIZE)[0].name for number in numbers)
