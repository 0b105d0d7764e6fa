"""Pieces of the open segment stay while they may be needed, and go with the segment or when it is there as a whole."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.retention.ages import age_of
from wal_pipeline.archive.retention.pieces import PiecesOnStore, SegmentPieces, pieces_name
from wal_pipeline.archive.retention.plan import Expired, ObjectKind, RetentionPlan, Step, plan_retention
from wal_pipeline.archive.retention.proof import prove_plan
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.errors import RetentionError
from wal_pipeline_tests.support import archive_oracle as oracle
from wal_pipeline_tests.support.archive_worlds import (
    DAY,
    after,
    backup,
    contents,
    day,
    day_segments,
    history,
    name,
    segment,
)
from wal_pipeline_tests.support.damaged_worlds import DamagedWorld, damaged_worlds

RULE = RetentionRule(window=10 * DAY, minimum_backups=1)


def tail(*segments: str, at: datetime, proven: Iterable[str] = (), unjudged: Iterable[str] = ()) -> PiecesOnStore:
    """Return three pieces of each segment, stored at a moment."""
    return PiecesOnStore(
        {one: SegmentPieces(3, 300, at) for one in segments},
        frozenset(proven),
        dict.fromkeys(unjudged, "nobody can say"),
    )


def sorted_pieces(plan: RetentionPlan) -> tuple[dict[str, str], dict[str, str]]:
    """Return the pieces that stay and those that go, by segment, each with its reason."""
    keep = {one.name: one.reason for one in plan.keep if one.kind is ObjectKind.PIECES}
    gone = {one.name: one.reason for one in plan.expire if one.step is Step.PIECES}
    return keep, gone


def archive_of_20(missing: Iterable[str] = ()) -> ArchiveContents:
    """Return 20 days with base backups of days 2 and 8."""
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 8.1, 8.5)]
    return contents(day_segments(1, range(1, 21)), backups, missing={"r2": list(missing)})


def test_pieces_whose_whole_segment_is_verified_on_the_store_go() -> None:
    """However young they are: the shipper would have removed them."""
    held = tail(name(1, 20), at=day(21), proven=[name(1, 20)])
    plan = plan_retention(archive_of_20(), "r2", day(21), RULE, tail=held)
    step = Expired(
        pieces_name(name(1, 20)), Step.PIECES, 300, "superseded: the whole segment is verified on this store", 3
    )
    assert step in plan.expire
    assert sorted_pieces(plan)[0] == {}


def test_pieces_stay_where_the_whole_segment_is_not_proven_on_the_store() -> None:
    """Whether it is absent, or there and not verified; young ones whatever else is known."""
    old = tail(name(1, 20), name(1, 21), at=day(5))
    plan = plan_retention(archive_of_20([name(1, 20)]), "r2", day(60), RULE, tail=old)
    wanted = dict.fromkeys([pieces_name(name(1, 20)), pieces_name(name(1, 21))], "needed by base backup b")
    assert sorted_pieces(plan) == (wanted, {})
    young = tail(name(1, 3), at=day(59))
    plan = plan_retention(archive_of_20(), "r2", day(60), RULE, tail=young)
    reason = "younger than the window, and the whole segment is not verified on this store"
    assert sorted_pieces(plan) == ({pieces_name(name(1, 3)): reason}, {})


def test_pieces_of_a_segment_that_the_plan_does_not_need_go_with_it() -> None:
    """Before the oldest base backup that stays, and older than the window."""
    plan = plan_retention(archive_of_20([name(1, 3)]), "r2", day(60), RULE, tail=tail(name(1, 3), at=day(4)))
    assert sorted_pieces(plan) == (
        {},
        {pieces_name(name(1, 3)): "before the start of base backup b, the oldest that is kept"},
    )


def test_pieces_of_a_left_timeline_go_once_they_are_older_than_the_window() -> None:
    """Until then they may hold commits that a failover lost: their branch stays as one with young segments does."""
    files = [*day_segments(1, range(1, 12)), *day_segments(2, range(11, 40))]
    archive = contents(files, [backup("a", 1, 2.1, 2.5)], histories=[history(2, 1, 11.3)])
    left = name(1, 12)
    plan = plan_retention(archive, "r2", day(15), RULE, tail=tail(left, at=day(13)))
    assert pieces_name(left) in sorted_pieces(plan)[0]
    assert name(1, 11) in {one.name for one in plan.keep}
    plan = plan_retention(archive, "r2", day(40), RULE, tail=tail(left, at=day(13)))
    reason = "no base backup can recover along timeline 1 here to a moment in the window"
    assert sorted_pieces(plan) == ({}, {pieces_name(left): reason})


def test_pieces_keep_the_whole_segments_before_them_on_a_left_timeline() -> None:
    """The branch's segments left the window yesterday, its last commits did not."""
    files = [*day_segments(1, range(1, 12)), segment(2, 6, day(20))]
    archive = contents(files, [backup("a", 1, 2.1, 2.5)], histories=[history(2, 1, 6.3)])
    now = day(22.5)
    assert name(1, 11) not in {one.name for one in plan_retention(archive, "r2", now, RULE).keep}
    plan = plan_retention(archive, "r2", now, RULE, tail=tail(name(1, 12), at=day(13)))
    assert {name(1, 11), pieces_name(name(1, 12))} <= {one.name for one in plan.keep}


def test_old_pieces_of_a_timeline_that_has_nothing_else_yet_stay() -> None:
    """The server was promoted and is quiet since: its first segment is not finished for longer than the window."""
    files, base_backups, held = day_segments(1, range(1, 21)), [backup("b", 1, 8.1, 8.5)], tail(name(2, 20), at=day(22))
    followed = contents(files, base_backups, histories=[history(2, 1, 20.3)])
    plan = plan_retention(followed, "r2", day(60), RULE, tail=held)
    assert sorted_pieces(plan) == ({pieces_name(name(2, 20)): "needed by base backup b"}, {})
    plan = plan_retention(contents(files, base_backups), "r2", day(60), RULE, tail=held)
    assert sorted_pieces(plan) == ({pieces_name(name(2, 20)): "timeline 2 has no archived segment yet"}, {})


def test_without_base_backups_the_age_of_pieces_decides() -> None:
    """No record says how old an unfinished segment is."""
    archive = contents(day_segments(1, range(1, 20)))
    old, young = tail(name(1, 20), at=day(20)), tail(name(1, 20), at=day(29.5))
    plan = plan_retention(archive, "r2", day(31), RULE, tail=old)
    assert sorted_pieces(plan)[1] == {pieces_name(name(1, 20)): "older than the window, and no base backup leads to it"}
    assert sorted_pieces(plan_retention(archive, "r2", day(31), RULE, tail=young))[1] == {}


def test_pieces_that_nobody_can_place_stay() -> None:
    """The archive has several segment sizes."""
    plan = plan_retention(archive_of_20(), "r2", day(60), RULE, tail=tail(name(1, 3), at=day(4), unjudged=[name(1, 3)]))
    assert sorted_pieces(plan) == ({pieces_name(name(1, 3)): "nobody can say"}, {})


@settings(max_examples=150, deadline=None)
@given(damaged_worlds(), st.data())
def test_no_pieces_go_that_could_reach_a_moment_of_the_window(world: DamagedWorld, data: st.DataObject) -> None:
    """Where the store has only pieces of a segment, each moment that they could reach can be reached after expiry."""
    lost = sorted(world.lost_names)
    files = world.seen.files
    at = {one: age_of(files[one]) + data.draw(st.integers(0, 20)) * DAY for one in lost}
    held = PiecesOnStore({one: SegmentPieces(2, 10, at[one]) for one in lost})
    sizes = {one: size for one, size in world.sizes.items() if one not in world.lost_names}
    listed = replace(world.listed(), names=frozenset(sizes), pieces_at=at)
    archive, store = world.truth.contents, world.store
    try:
        plan = plan_retention(
            world.seen, store, world.truth.now, RULE, stored_bytes=sizes, remains=world.remains, tail=held
        )
    except RetentionError as error:
        assert "so nothing expires" in error.message
        return
    prove_plan(plan, listed)
    steps = tuple(
        replace(one, name=one.name.removeprefix("tail/"), step=Step.WAL_FILE) if one.step is Step.PIECES else one
        for one in plan.expire
    )
    left = after(world.truth, store, steps)
    walks = oracle.walks(left, oracle.holding(left, [store]))
    for walk in oracle.walks(archive, oracle.holding(archive, [store])):
        for moment, stop in oracle.moments(archive, walk):
            if plan.window_starts_at <= moment <= world.truth.now:
                assert any(oracle.reaches(left, one, moment, stop) for one in walks)
