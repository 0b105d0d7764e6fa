"""Gaps and their ledger."""

from dataclasses import dataclass
from datetime import datetime

from hypothesis import given, settings

from wal_pipeline.archive.recovery.gaps import Gap, GapState, LedgerEntry, find_gaps, gap_ledger
from wal_pipeline.archive.recovery.window import WindowEnd, recovery_windows
from wal_pipeline.wal.timeline import TimelineHistory
from wal_pipeline_tests.support.archive_worlds import (
    SIZE,
    START,
    SYSTEM,
    World,
    backup,
    contents,
    day,
    day_segments,
    history,
    lsn,
    name,
    worlds,
)


@dataclass(frozen=True)
class Acceptance:
    """The catalog's record that a person accepted a gap."""

    first_missing: str
    last_missing: str
    system_identifier: int = SYSTEM
    timeline: int = 1
    acknowledged_by: str = "ada"
    reason: str = "disk lost on day 5"
    acknowledged_at: datetime = START


def missing(gaps: tuple[Gap, ...]) -> list[tuple[str, str]]:
    """Return the first and last name of each gap."""
    return [(gap.first_missing, gap.last_missing) for gap in gaps]


def test_a_gap_says_what_is_missing_and_which_moments() -> None:
    """With what another store could refill."""
    archive = contents(
        day_segments(1, range(1, 10)),
        [backup("one", 1, 2.1, 2.5)],
        missing={"r2": [name(1, 5), name(1, 6)], "b2": [name(1, 6)]},
        stores=["r2", "b2"],
    )
    assert find_gaps(archive, ["r2"]) == (
        Gap(
            store="r2",
            system_identifier=SYSTEM,
            timeline=1,
            first_missing=name(1, 5),
            last_missing=name(1, 6),
            segments=2,
            start_lsn=lsn(5),
            end_lsn=lsn(7),
            last_commit_before_at=day(4.75),
            first_commit_after_at=day(7.25),
            held_elsewhere=1,
            held_by=("b2",),
        ),
    )
    assert [(gap.store, gap.first_missing, gap.last_missing) for gap in find_gaps(archive)] == [
        (None, name(1, 6), name(1, 6))
    ]


def test_what_is_missing_before_the_oldest_base_backup_is_no_gap() -> None:
    """Nothing needs it."""
    archive = contents(day_segments(1, [1, 3, 4, 5]), [backup("one", 1, 4.1, 4.5)])
    assert find_gaps(archive) == ()


def test_what_is_missing_at_the_end_is_late_and_no_gap() -> None:
    """The other store is ahead."""
    archive = contents(
        day_segments(1, range(1, 6)), [backup("one", 1, 2.1, 2.5)], missing={"b2": [name(1, 5)]}, stores=["r2", "b2"]
    )
    assert find_gaps(archive, ["b2"]) == ()


def test_a_hole_at_the_start_of_the_oldest_base_backup_is_a_gap() -> None:
    """That base backup cannot be restored."""
    archive = contents(day_segments(1, [3, 4, 5]), [backup("one", 1, 2.1, 3.5)])
    assert missing(find_gaps(archive)) == [(name(1, 2), name(1, 2))]


def test_without_a_base_backup_each_hole_is_a_gap() -> None:
    """The archive alone is judged as it is."""
    assert missing(find_gaps(contents(day_segments(1, [2, 4])))) == [(name(1, 3), name(1, 3))]


def test_a_switch_is_no_gap() -> None:
    """The parent has no segment at the switch."""
    archive = contents(
        [*day_segments(1, range(1, 5)), *day_segments(2, range(5, 9))],
        [backup("one", 1, 2.1, 2.5)],
        histories=[history(2, 1, 5.3)],
    )
    assert find_gaps(archive) == ()


def test_a_gap_over_a_switch_is_one_on_each_timeline() -> None:
    """The names before the switch are the parent's, the rest the child's."""
    archive = contents(
        [*day_segments(1, range(1, 4)), *day_segments(2, range(7, 9))],
        [backup("one", 1, 2.1, 2.5)],
        histories=[history(2, 1, 5.3)],
    )
    assert missing(find_gaps(archive)) == [(name(1, 4), name(1, 4)), (name(2, 5), name(2, 6))]


def test_a_gap_seen_from_two_paths_is_one() -> None:
    """The parent's own branch continues after it, further than the child's path follows it."""
    archive = contents(
        [*day_segments(1, [1, 2, 3, 7, 8]), *day_segments(2, [5, 6])],
        [backup("one", 1, 2.1, 2.5)],
        histories=[history(2, 1, 5.3)],
    )
    assert missing(find_gaps(archive)) == [(name(1, 4), name(1, 6))]


def test_a_gap_is_open_until_a_person_accepts_it() -> None:
    """The acceptance is kept with it."""
    archive = contents(day_segments(1, [2, 3, 4, 6]), [backup("one", 1, 2.1, 2.5)])
    (gap,) = find_gaps(archive)
    accepted = Acceptance(name(1, 5), name(1, 5))
    assert gap_ledger(archive, [gap]) == (LedgerEntry(gap, GapState.OPEN, None, None),)
    assert gap_ledger(archive, [gap], [accepted]) == (LedgerEntry(gap, GapState.ACKNOWLEDGED, accepted, None),)


def test_a_gap_that_grew_is_open_again() -> None:
    """One that shrank stays accepted."""
    archive = contents(day_segments(1, [2, 3, 6]), [backup("one", 1, 2.1, 2.5)])
    (gap,) = find_gaps(archive)
    states = [
        gap_ledger(archive, [gap], [Acceptance(name(1, first), name(1, last))])[0].state
        for first, last in ((5, 5), (3, 9))
    ]
    assert states == [GapState.OPEN, GapState.ACKNOWLEDGED]


def test_a_later_base_backup_closes_a_gap() -> None:
    """Only one that starts after it and can be restored from that store."""
    backups = [backup("one", 1, 2.1, 2.5), backup("two", 1, 6.1, 7.5), backup("three", 1, 9.1, 9.5)]
    archive = contents(day_segments(1, [2, 3, 4, 6, 8, 9]), backups)
    entries = gap_ledger(archive, find_gaps(archive))
    assert [(entry.state, entry.closed_by) for entry in entries] == [(GapState.CLOSED, "three")] * 2


def test_a_base_backup_that_starts_before_the_gaps_end_closes_nothing() -> None:
    """It needs what is missing."""
    archive = contents(day_segments(1, [2, 3, 4, 6, 7]), [backup("one", 1, 2.1, 2.5), backup("two", 1, 5.9, 6.5)])
    assert [entry.state for entry in gap_ledger(archive, find_gaps(archive))] == [GapState.OPEN]


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_what_ends_a_window_by_a_gap_is_in_the_gaps(world: World) -> None:
    """And each missing name is truly missing, with something later on a path."""
    for store in world.contents.stores:
        gaps = find_gaps(world.contents, [store])
        spans = [(gap.timeline, gap.start_lsn // SIZE, gap.end_lsn // SIZE) for gap in gaps]
        lost = {name(timeline, number) for timeline, first, end in spans for number in range(first, end)}
        assert not lost & world.contents.copies[store]
        for window in recovery_windows(world.contents, [store]):
            if window.ended_by is WindowEnd.GAP:
                assert window.first_missing in lost


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_the_gaps_are_the_holes_that_walking_meets(world: World) -> None:
    """Along each way, from the oldest base backup's start to the last segment that is there."""
    for store in world.contents.stores:
        held = world.contents.copies[store]
        expected: set[str] = set()
        for timeline in world.contents.paths:
            way = world.contents.histories.get(timeline, TimelineHistory(timeline))
            here = {n: way.segment_candidates(n, SIZE)[0].name for n in range(1, 40)}
            there = [n for n, one in here.items() if one in held]
            starts = [
                one.backup.start_lsn // SIZE
                for one in world.contents.backups.values()
                if store in one.stores and way.holds(one.backup.timeline, one.backup.stop_lsn)
            ]
            if there:
                expected |= {here[n] for n in range(min(starts, default=min(there)), max(there)) if n not in there}
        spans = [(g.timeline, g.start_lsn // SIZE, g.end_lsn // SIZE) for g in find_gaps(world.contents, [store])]
        assert {name(timeline, n) for timeline, first, end in spans for n in range(first, end)} == expected
