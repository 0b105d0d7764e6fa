"""Recovery windows that end in pieces, per store and together."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wal_pipeline.archive.format.piece import Piece
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.gaps import find_gaps
from wal_pipeline.archive.recovery.reach import CommitsBeyond, recorded_beyond
from wal_pipeline.archive.recovery.restore_plan import plan_restore
from wal_pipeline.archive.recovery.tail import HeldPiece
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind, TargetOutsideError
from wal_pipeline.archive.recovery.window import WindowEnd, recovery_windows, windows_by_store
from wal_pipeline.wal.lsn import Lsn
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
    worlds,
)
from wal_pipeline_tests.support.pieces import cut, held, with_commits

DATA = bytes(range(256)) * (SIZE // 256)


def pieces_of(timeline: int, number: int, *parts: float, data: bytes = DATA) -> list[Piece]:
    """Cut segment ``number`` at these parts of it; it was written on that day, with a commit in each piece."""
    places = [int(part * SIZE) for part in parts]
    made = cut(name(timeline, number), data, places, system_identifier=SYSTEM, wal_segment_size=SIZE)
    times = [day(number + part) for part in parts[1:]]
    return [
        with_commits(replace(piece, flushed_at=at), first_at=at, last_at=at)
        for piece, at in zip(made, times, strict=True)
    ]


def with_tails(archive: ArchiveContents, tails: Iterable[HeldPiece]) -> ArchiveContents:
    """Return the archive with these pieces."""
    return ArchiveContents.of(
        SYSTEM,
        files=archive.files.values(),
        copies=archive.copies,
        backups=archive.backups.values(),
        histories=archive.histories,
        breaks=archive.breaks,
        arriving=archive.arriving,
        tails=tails,
    )


def archive_of(*tails: HeldPiece, stores: tuple[str, ...] = ("r2",)) -> ArchiveContents:
    """Return segments 1 to 9 with a base backup, and pieces."""
    return with_tails(contents(day_segments(1, range(1, 10)), [backup("one", 1, 2.1, 3.5)], stores=stores), tails)


def test_a_window_ends_with_the_last_shipped_commit() -> None:
    """It has the open segment, up to the end of its pieces."""
    (window,) = recovery_windows(archive_of(*held(pieces_of(1, 10, 0, 0.25, 0.5))))
    assert (window.last_segment, window.latest_lsn, window.segments) == (name(1, 10), lsn(10.5), 9)
    assert (window.latest_commit_at, window.reaches_at_least, window.ended_by) == (day(10.5), day(10.5), WindowEnd.END)
    assert window.tail is not None
    assert window.tail.end_offset == SIZE // 2


def test_each_store_ends_where_its_own_pieces_end_and_together_the_further_counts() -> None:
    """b2 is behind."""
    tails = [*held(pieces_of(1, 10, 0, 0.25, 0.5)), *held(pieces_of(1, 10, 0, 0.25), "b2")]
    by_store = windows_by_store(archive_of(*tails, stores=("r2", "b2")))
    assert {store: some[0].latest_lsn for store, some in by_store.items()} == {
        None: lsn(10.5),
        "r2": lsn(10.5),
        "b2": lsn(10.25),
    }


def test_a_store_without_the_whole_segment_uses_its_pieces() -> None:
    """Together the whole segment counts, and the commits beyond the pieces are known by its record."""
    files = day_segments(1, range(1, 11))
    made = contents(files, [backup("one", 1, 2.1, 3.5)], stores=("r2", "b2"), missing={"b2": [name(1, 10)]})
    archive = with_tails(made, held(pieces_of(1, 10, 0, 0.5), "b2"))
    by_store = windows_by_store(archive)
    assert by_store[None][0].tails == ()
    (window,) = by_store["b2"]
    assert (window.latest_lsn, window.tail is not None) == (lsn(10.5), True)
    assert recorded_beyond(archive, window) == CommitsBeyond(None, lsn(10.5))


def test_pieces_elsewhere_tell_the_commits_beyond() -> None:
    """r2 has a commit that b2 lacks: its time is when b2's window ends."""
    tails = [*held(pieces_of(1, 10, 0, 0.25, 0.5)), *held(pieces_of(1, 10, 0, 0.25), "b2")]
    archive = archive_of(*tails, stores=("r2", "b2"))
    by_store = windows_by_store(archive)
    assert recorded_beyond(archive, by_store["b2"][0]) == CommitsBeyond(day(10.5), lsn(10.25))
    assert recorded_beyond(archive, by_store["r2"][0]) == CommitsBeyond(None, lsn(10.5))


def test_a_finished_segment_in_pieces_leads_to_the_open_one() -> None:
    """Two segments are not archived yet."""
    tails = held([*pieces_of(1, 10, 0, 0.5, 1), *pieces_of(1, 11, 0, 0.25)])
    (window,) = recovery_windows(archive_of(*tails))
    assert (window.latest_lsn, [tail.number for tail in window.tails]) == (lsn(11.25), [10, 11])


def test_a_hole_before_the_pieces_ends_the_window_and_is_no_gap() -> None:
    """Shipping is ahead of archiving: what waits in the spool is not lost."""
    archive = archive_of(*held([*pieces_of(1, 11, 0, 1), *pieces_of(1, 12, 0, 0.25)]))
    (window,) = recovery_windows(archive)
    assert (window.latest_lsn, window.ended_by, window.tails) == (lsn(10), WindowEnd.END, ())
    assert find_gaps(archive) == ()


def test_a_finished_segment_in_pieces_closes_a_hole() -> None:
    """Its upload failed, and later segments were archived."""
    made = contents(day_segments(1, range(1, 10)), [backup("one", 1, 2.1, 3.5)], missing={"r2": [name(1, 6)]})
    archive = with_tails(made, held(pieces_of(1, 6, 0, 0.5, 1)))
    (window,) = recovery_windows(archive)
    assert (window.latest_lsn, window.tail) == (lsn(10), None)
    assert [tail.number for tail in window.tails] == [6]
    assert find_gaps(archive) == ()
    plan = plan_restore(archive, RecoveryTarget())
    assert ([tail.number for tail in plan.tails], plan.tail) == ([6], None)


def test_an_unfinished_segment_before_a_gap_ends_its_window() -> None:
    """The gap begins with it: its rest is missing."""
    made = contents(day_segments(1, range(1, 10)), [backup("one", 1, 2.1, 3.5)], missing={"r2": [name(1, 6)]})
    archive = with_tails(made, held(pieces_of(1, 6, 0, 0.5)))
    (window,) = recovery_windows(archive)
    assert (window.latest_lsn, window.ended_by, window.first_missing) == (lsn(6.5), WindowEnd.GAP, name(1, 6))
    assert [gap.first_missing for gap in find_gaps(archive)] == [name(1, 6)]


def test_pieces_of_a_history_that_was_left_are_not_used_beyond_the_fork() -> None:
    """Timeline 2 began in segment 8, of which timeline 1 shipped more."""
    files = [*day_segments(1, range(1, 8)), *day_segments(2, [8])]
    made = contents(files, [backup("one", 1, 2.1, 3.5)], histories=[history(2, 1, 8.25)])
    archive = with_tails(made, held([*pieces_of(1, 8, 0, 0.25, 0.9), *pieces_of(2, 9, 0, 0.5)]))
    left, newest = recovery_windows(archive)
    assert (newest.timeline, newest.latest_lsn, [tail.segment.timeline for tail in newest.tails]) == (2, lsn(9.5), [2])
    assert (left.timeline, left.latest_lsn, left.left_at_lsn) == (1, lsn(8.9), lsn(8.25))
    assert plan_restore(archive, RecoveryTarget()).timeline == 2


def test_pieces_up_to_the_fork_are_part_of_the_newer_timelines_window() -> None:
    """The old server shipped nothing after the promotion."""
    files = [*day_segments(1, range(1, 8)), *day_segments(2, [8])]
    made = contents(files, [backup("one", 1, 2.1, 3.5)], histories=[history(2, 1, 8.25)])
    (window,) = recovery_windows(with_tails(made, held(pieces_of(1, 8, 0, 0.25))))
    assert (window.timeline, window.latest_lsn) == (2, lsn(9))


def test_a_new_timelines_first_segment_is_there_in_pieces_alone() -> None:
    """It repeats its parent's segment up to the switch, and goes on."""
    made = contents(day_segments(1, range(1, 8)), [backup("one", 1, 2.1, 3.5)], histories=[history(2, 1, 8.25)])
    archive = with_tails(made, held(pieces_of(2, 8, 0, 0.25, 0.75)))
    window = recovery_windows(archive)[-1]
    assert (window.timeline, window.timelines, window.latest_lsn) == (2, (1, 2), lsn(8.75))
    plan = plan_restore(archive, RecoveryTarget())
    assert (plan.timeline, plan.tail is not None) == (2, True)


def test_a_new_timelines_pieces_that_end_before_the_switch_are_not_used() -> None:
    """They would end the recovery before the parent's own WAL does."""
    made = contents(day_segments(1, range(1, 8)), [backup("one", 1, 2.1, 3.5)], histories=[history(2, 1, 8.25)])
    archive = with_tails(made, held([*pieces_of(2, 8, 0, 0.2), *pieces_of(1, 8, 0, 0.25)]))
    plan = plan_restore(archive, RecoveryTarget())
    assert (plan.timeline, plan.window.latest_lsn) == (1, lsn(8.25))


def test_pieces_of_a_timeline_whose_history_is_not_known_are_not_followed() -> None:
    """It may be shipped before its history file is archived."""
    archive = archive_of(*held(pieces_of(2, 10, 0, 0.5)))
    assert archive.main is not None
    assert archive.main.timeline == 1
    assert plan_restore(archive, RecoveryTarget()).timeline == 1


def test_a_tail_that_continues_nothing_is_a_break() -> None:
    """The window ends before it, and says which segment it is."""
    archive = archive_of(*held(pieces_of(1, 10, 0, 0.5)))
    broken = replace(archive, breaks={name(1, 10): "it does not continue it"})
    (window,) = recovery_windows(broken)
    assert (window.latest_lsn, window.ended_by, window.first_missing) == (lsn(10), WindowEnd.BREAK, name(1, 10))
    plan = plan_restore(broken, RecoveryTarget())
    assert (plan.bound, plan.tails) == (name(1, 9), ())


def test_a_base_backup_that_stops_within_the_pieces_can_be_restored() -> None:
    """Not one that stops beyond them."""
    made = contents(day_segments(1, range(1, 10)), [backup("one", 1, 9.5, 10.4), backup("two", 1, 9.6, 10.6)])
    (window,) = recovery_windows(with_tails(made, held(pieces_of(1, 10, 0, 0.5))))
    assert window.backup_ids == ("one",)


def test_a_plan_to_the_end_has_the_tail() -> None:
    """Its stores are those of the pieces."""
    plan = plan_restore(archive_of(*held(pieces_of(1, 10, 0, 0.25, 0.5))), RecoveryTarget())
    assert (plan.wal[-1].name, plan.wal[-1].stores) == (name(1, 10), ("r2",))
    assert plan.tail is not None
    assert (plan.commit_at_least, plan.commit_at_most, plan.bound) == (day(10.5), day(10.5), None)


@pytest.mark.parametrize(
    ("at", "tails", "bound"),
    [(9.5, [], None), (10.3, [10], None), (10.5, [10], name(1, 10)), (10.0, [10], None)],
)
def test_a_time_within_the_tail_is_reached(at: float, tails: list[int], bound: str | None) -> None:
    """PostgreSQL stops at the next commit; at the last one the plan ends the recovery."""
    archive = archive_of(*held(pieces_of(1, 10, 0, 0.25, 0.5)))
    plan = plan_restore(archive, RecoveryTarget(kind=TargetKind.TIME, at=day(at)))
    assert ([tail.number for tail in plan.tails], plan.bound) == (tails, bound)


def test_a_time_after_the_last_commit_up_to_the_flush_is_the_end() -> None:
    """No commit was acknowledged between them; a later time is outside."""
    first, last = pieces_of(1, 10, 0, 0.25, 0.5)
    quiet = replace(last, first_commit_at=None, last_commit_at=None)
    archive = archive_of(*held([first, quiet]))
    plan = plan_restore(archive, RecoveryTarget(kind=TargetKind.TIME, at=day(10.4)))
    assert (plan.target.kind, plan.bound, plan.commit_at_most) == (TargetKind.END, name(1, 10), day(10.25))
    with pytest.raises(TargetOutsideError) as refused:
        plan_restore(archive, RecoveryTarget(kind=TargetKind.TIME, at=day(10.6)))
    assert refused.value.before == day(10.5).isoformat(" ")


def test_an_lsn_within_the_tail_is_reached_and_one_beyond_it_is_not() -> None:
    """The tail's own end is reached without a target."""
    archive = archive_of(*held(pieces_of(1, 10, 0, 0.25, 0.5)))

    def to(at: Lsn) -> RecoveryTarget:
        return RecoveryTarget(kind=TargetKind.LSN, lsn=at)

    assert plan_restore(archive, to(lsn(10.4))).target.lsn == lsn(10.4)
    end = plan_restore(archive, to(lsn(10.5)))
    assert (end.target.kind, end.bound) == (TargetKind.END, name(1, 10))
    with pytest.raises(TargetOutsideError, match=f"is past {lsn(10.5)}, up to which '{name(1, 10)}' was shipped, on"):
        plan_restore(archive, to(lsn(10.6)))


def test_the_plan_says_what_comes_from_pieces() -> None:
    """And where another history ends it."""
    other = bytes(byte ^ 1 for byte in DATA)
    mine, others = held(pieces_of(1, 10, 0, 0.25, 0.5)), held(pieces_of(1, 10, 0, 0.25, 0.5, data=other), "b2")
    (note,) = plan_restore(archive_of(*mine), RecoveryTarget()).notes
    assert note == f"No store has '{name(1, 10)}' as a whole: 2 pieces on r2 hold it up to {lsn(10.5)}."
    both = archive_of(*mine, *others, stores=("r2", "b2"))
    plan = plan_restore(both, RecoveryTarget())
    assert plan.tails == ()
    (note,) = plan.notes
    assert note == (
        f"Pieces of '{name(1, 10)}' are of two histories: up to offset {SIZE // 4} they hold different content, and "
        "they agree up to offset 0, where this tail ends."
    )
    assert len(plan_restore(both, RecoveryTarget(), stores=["b2"]).tails) == 1


def test_a_server_that_ships_beside_a_promoted_one_is_a_rival() -> None:
    """Neither has finished a segment since they parted."""
    made = contents(day_segments(1, range(1, 8)), [backup("one", 1, 2.1, 3.5)], histories=[history(2, 1, 8.25)])
    files = {**made.files, "00000002.history": replace(made.files["00000002.history"], spooled_at=day(8.3))}
    made = replace(made, files=files)
    archive = with_tails(made, held([*pieces_of(2, 8, 0, 0.25, 0.9), *pieces_of(1, 8, 0, 0.25, 0.88)]))
    plan = plan_restore(archive, RecoveryTarget())
    assert plan.timeline == 2
    assert plan.rival is not None
    assert (plan.rival.timeline, plan.rival.last_at, plan.rival.last_segment) == (1, day(8.88), name(1, 8))
    ended = with_tails(made, held([*pieces_of(2, 8, 0, 0.25, 0.9), *pieces_of(1, 8, 0, 0.25)]))
    assert plan_restore(ended, RecoveryTarget()).rival is None


def key(window: object) -> tuple[object, ...]:
    """Return what a window says without how it is stored."""
    names = ("store", "timeline", "timelines", "backup_ids", "earliest_at", "latest_lsn", "latest_commit_at_least")
    return tuple(getattr(window, one) for one in (*names, "first_segment", "last_segment", "left_at_lsn"))


@settings(max_examples=60, deadline=None)
@given(worlds(), st.data())
def test_a_segment_in_pieces_is_as_good_as_a_whole_one(world: World, data: st.DataObject) -> None:
    """Windows are the same where any segments of an archive lie on their stores in pieces that are all of them."""
    archive = world.contents
    segments = [one for one in archive.files.values() if one.wal_segment_size]
    chosen = data.draw(st.lists(st.sampled_from(segments), unique_by=lambda one: one.name)) if segments else []
    names = {one.name for one in chosen}
    tails = []
    for file in chosen:
        places = [0, *sorted(data.draw(st.sets(st.integers(1, SIZE - 1), max_size=3))), SIZE]
        made = cut(file.name, DATA, places, system_identifier=SYSTEM, wal_segment_size=SIZE)
        ends = [replace(one, commit_times=file.commit_times) for one in made]
        ends[0] = replace(ends[0], first_commit_at=file.first_commit_at)
        ends[-1] = replace(ends[-1], last_commit_at=file.last_commit_at)
        ends = [replace(one, flushed_at=datetime.min.replace(tzinfo=one.flushed_at.tzinfo)) for one in ends]
        for store in (store for store, has in archive.copies.items() if file.name in has):
            tails += held(ends, store)
    copies = {store: has - names for store, has in archive.copies.items()}
    in_pieces = with_tails(replace(archive, copies=copies), tails)
    whole, cut_up = windows_by_store(archive), windows_by_store(in_pieces)
    assert {one: list(map(key, some)) for one, some in cut_up.items()} == {
        one: list(map(key, some)) for one, some in whole.items()
    }
