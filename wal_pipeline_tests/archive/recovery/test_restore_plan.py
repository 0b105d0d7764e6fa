"""A restore plan names the base backup, the files with their stores and the moment, or says why there is none."""

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.restore_plan import PlannedFile, RestorePlan, plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind, TargetOutsideError
from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.timeline import TimelineHistory
from wal_pipeline_tests.support import archive_oracle as oracle
from wal_pipeline_tests.support.archive_worlds import (
    SIZE,
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

END = RecoveryTarget()
TWO = [backup("one", 1, 2.1, 2.5), backup("two", 1, 6.1, 6.5)]
PLAIN = contents(day_segments(1, range(1, 10)), TWO)
GAP = contents(day_segments(1, range(1, 10)), TWO, missing={"r2": [name(1, 5)]})
FORK = contents([*day_segments(1, range(1, 8)), *day_segments(2, range(5, 10))], TWO, histories=[history(2, 1, 5.3)])


def to_time(at: datetime, **more: object) -> RecoveryTarget:
    """Return the target at a time."""
    return RecoveryTarget(TargetKind.TIME, at=at, **more)  # type: ignore[arg-type]


def to_lsn(position: float, **more: object) -> RecoveryTarget:
    """Return the target at a position in segments."""
    return RecoveryTarget(TargetKind.LSN, lsn=lsn(position), **more)  # type: ignore[arg-type]


def names(plan: RestorePlan) -> list[str]:
    """Return the segments of a plan."""
    return [file.name for file in plan.wal]


def test_the_end_is_reached_from_the_newest_base_backup() -> None:
    """With the exact last commit."""
    plan = plan_restore(PLAIN, END)
    assert (plan.backup.backup_id, names(plan)) == ("two", [name(1, n) for n in (6, 7, 8, 9)])
    assert (plan.commit_at_least, plan.commit_at_most) == (day(9.75), day(9.75))
    assert plan.notes == ()


def test_a_time_is_reached_from_the_newest_base_backup_that_finished_before_it() -> None:
    """The files go up to the first commit after it."""
    plan = plan_restore(PLAIN, to_time(day(5.5)))
    assert (plan.backup.backup_id, names(plan)) == ("one", [name(1, n) for n in (2, 3, 4, 5)])
    assert (plan.commit_at_least, plan.commit_at_most) == (day(5.25), day(5.5))


def test_the_time_at_which_a_base_backup_finished_can_be_reached_from_it() -> None:
    """It is consistent there."""
    assert plan_restore(PLAIN, to_time(day(6.5))).backup.backup_id == "two"


def test_the_time_of_the_last_commit_becomes_the_end() -> None:
    """PostgreSQL stops at a time only when it sees a later commit, and there is none."""
    plan = plan_restore(PLAIN, to_time(day(9.75)))
    assert (plan.asked.kind, plan.target.kind, plan.target.timeline) == (TargetKind.TIME, TargetKind.END, 1)
    assert plan.notes == (
        "The target is the last commit that is archived: recovery ends with the last segment of this plan.",
    )
    assert plan.bound == plan.wal[-1].name
    assert plan_restore(PLAIN, END).bound is None
    assert plan_restore(PLAIN, to_time(day(5.5))).bound is None


def test_where_the_clock_went_back_recovery_stops_at_the_first_later_commit() -> None:
    """Also at the time of the last commit: an end would replay commits that are later than it."""
    back = segment(1, 10, day(11), commits=(day(9.3), day(9.4)))
    archive = contents([*day_segments(1, range(1, 10)), back], TWO)
    for at in (day(9.4), day(9.5), day(9.7)):
        plan = plan_restore(archive, to_time(at))
        assert (plan.target.kind, plan.target.at, plan.bound) == (TargetKind.TIME, at, None)
        assert (names(plan)[-1], plan.commit_at_least, plan.commit_at_most) == (name(1, 9), day(9.25), at)
    with pytest.raises(TargetOutsideError):
        plan_restore(archive, to_time(day(9.8)))


def test_just_before_the_last_commit_stays_a_time() -> None:
    """Exclusive: PostgreSQL stops when it sees that commit."""
    assert plan_restore(PLAIN, to_time(day(9.75), inclusive=False)).target.kind is TargetKind.TIME


def test_a_time_before_the_first_base_backup_is_refused_with_the_first_moment() -> None:
    """It names the nearest moment after."""
    with pytest.raises(TargetOutsideError) as caught:
        plan_restore(PLAIN, to_time(day(2)))
    assert str(caught.value) == (
        "time 2026-01-03 00:00:00+00:00 is before the first moment that can be restored on timeline 1\n"
        "HINT: The nearest that can be reached: 2026-01-03 12:00:00+00:00 (after)."
    )


def test_a_time_later_than_the_last_commit_is_refused_with_that_commit() -> None:
    """It is in the future of the archive."""
    with pytest.raises(TargetOutsideError) as caught:
        plan_restore(PLAIN, to_time(day(11)))
    assert str(caught.value) == (
        "time 2026-01-12 00:00:00+00:00 is later than the last commit that is archived on timeline 1\n"
        "HINT: The nearest that can be reached: 2026-01-10 18:00:00+00:00 (before)."
    )


def test_a_time_in_a_gap_is_refused_with_the_moments_around_it() -> None:
    """The last commit before the gap, and the stop of the base backup after it."""
    with pytest.raises(TargetOutsideError) as caught:
        plan_restore(GAP, to_time(day(5.5)))
    assert str(caught.value) == (
        f"time 2026-01-06 12:00:00+00:00 is in the gap that begins with '{name(1, 5)}' on timeline 1\n"
        "HINT: The nearest that can be reached: 2026-01-05 18:00:00+00:00 (before), 2026-01-07 12:00:00+00:00 (after)."
    )


def test_what_other_stores_could_reach_is_in_the_hint() -> None:
    """The gap is on one store only."""
    archive = contents(day_segments(1, range(1, 10)), TWO, missing={"r2": [name(1, 5)]}, stores=["r2", "b2"])
    with pytest.raises(TargetOutsideError, match=r"From any store it can be reached on timeline 1\."):
        plan_restore(archive, to_time(day(5.5)), stores=["r2"])
    assert plan_restore(archive, to_time(day(5.5))).wal[-1] == PlannedFile(name(1, 5), ("b2",))


def test_the_end_behind_a_gap_says_what_is_lost() -> None:
    """And that another store has more."""
    archive = contents(day_segments(1, range(1, 10)), TWO[:1], missing={"r2": [name(1, 5)]}, stores=["r2", "b2"])
    assert plan_restore(archive, END, stores=["r2"]).notes == (
        f"The recovery ends at a gap, which begins with '{name(1, 5)}': later WAL is not replayed.",
        f"From any store the recovery would continue to '{name(1, 9)}'.",
    )


def test_an_lsn_is_reached_from_the_newest_base_backup_that_stopped_before_it() -> None:
    """The record there may end in the next segment."""
    plan = plan_restore(PLAIN, to_lsn(7.5))
    assert (plan.backup.backup_id, names(plan)) == ("two", [name(1, n) for n in (6, 7, 8)])


@pytest.mark.parametrize(
    ("position", "message", "before", "after"),
    [
        (2.2, "LSN 0/233333 is before the first LSN that can be restored on timeline 1", None, str(lsn(2.5))),
        (5.5, f"LSN 0/580000 is past '{name(1, 5)}', which is missing on timeline 1", "0/400000", str(lsn(6.5))),
        (12, "LSN 0/C00000 is past the end of the archive on timeline 1", "0/900000", None),
    ],
)
def test_an_lsn_outside_is_refused_with_the_nearest(
    position: float, message: str, before: str | None, after: str | None
) -> None:
    """Before the first base backup, in a gap, and past the end."""
    with pytest.raises(TargetOutsideError) as caught:
        plan_restore(GAP, to_lsn(position))
    assert (caught.value.message, caught.value.before, caught.value.after) == (message, before, after)


def test_immediate_needs_only_the_base_backups_own_wal() -> None:
    """Of the newest one."""
    plan = plan_restore(PLAIN, RecoveryTarget(TargetKind.IMMEDIATE))
    assert (plan.backup.backup_id, names(plan)) == ("two", [name(1, 6)])


def test_latest_follows_the_newest_timeline() -> None:
    """The base backup on the abandoned branch does not lead there."""
    plan = plan_restore(FORK, END)
    assert (plan.timeline, plan.timelines, plan.backup.backup_id) == (2, (1, 2), "one")
    assert names(plan) == [*(name(1, n) for n in (2, 3, 4)), *(name(2, n) for n in range(5, 10))]
    assert [file.name for file in plan.histories] == ["00000002.history"]


def test_current_stays_on_the_base_backups_timeline() -> None:
    """PostgreSQL's word for it."""
    plan = plan_restore(FORK, RecoveryTarget(timeline="current"))
    assert (plan.timeline, plan.backup.backup_id) == (1, "two")
    assert plan.notes == (
        "Timeline 2 goes on until 2026-01-10 18:00:00Z ('000000020000000000000009') past 0/54CCCC, where it parts from "
        "timeline 1, which has commits until 2026-01-08 18:00:00Z; timeline 1 was chosen.",
    )


def test_a_timeline_by_number_is_followed() -> None:
    """The abandoned branch is still there."""
    plan = plan_restore(FORK, RecoveryTarget(timeline=1))
    assert (plan.target.timeline, names(plan)) == (1, [name(1, 6), name(1, 7)])


def test_a_time_that_only_another_timeline_reaches_says_so() -> None:
    """The newest timeline's archive begins later."""
    archive = contents(
        [*day_segments(1, range(1, 8)), *(segment(2, n, day(n)) for n in (5, 6))], TWO, histories=[history(2, 1, 5.3)]
    )
    with pytest.raises(TargetOutsideError, match=r"It can be reached on timeline 1\."):
        plan_restore(archive, to_time(day(7)))


def test_an_unknown_timeline_is_refused() -> None:
    """With those that are known."""
    with pytest.raises(RecoveryTargetError) as caught:
        plan_restore(FORK, RecoveryTarget(timeline=7))
    assert caught.value.message == "timeline 7 is not in the archive, expected one of: 1, 2"


def test_a_timeline_without_its_history_file_is_refused_by_number() -> None:
    """PostgreSQL would refuse it too."""
    archive = contents(
        [*day_segments(1, range(1, 5)), *day_segments(2, range(5, 9))],
        TWO[:1],
        histories=[history(2, 1, 5.3)],
        missing={"r2": ["00000002.history"]},
    )
    with pytest.raises(RecoveryTargetError) as caught:
        plan_restore(archive, RecoveryTarget(timeline=2))
    assert caught.value.message == "timeline 2 cannot be followed: r2 has no '00000002.history'"


def test_the_end_is_refused_where_postgresql_would_run_past_the_switch() -> None:
    """The child's first segment is missing, and the parent's of the same number is there."""
    archive = contents(
        [*day_segments(1, range(1, 8)), *day_segments(2, range(6, 10))], TWO[:1], histories=[history(2, 1, 5.3)]
    )
    with pytest.raises(RecoveryTargetError) as caught:
        plan_restore(archive, RecoveryTarget(timeline=2))
    assert str(caught.value) == (
        f"timeline 2 begins with '{name(2, 5)}', which r2 does not have: recovery would continue in '{name(1, 5)}', "
        "past the switch\nHINT: Recover to a time or an LSN before the switch, or along timeline 1."
    )
    assert plan_restore(archive, END).timeline == 1


def test_a_chain_is_listed_from_the_full_base_backup_on() -> None:
    """Each with the stores that hold it; WAL is needed from the incremental one's start only."""
    full, incremental = backup("full", 1, 2.1, 2.5), backup("inc", 1, 6.1, 6.5, parent="full")
    archive = contents(day_segments(1, range(1, 10)), {full: ["r2"], incremental: ["r2", "b2"]}, stores=["r2", "b2"])
    plan = plan_restore(archive, END)
    assert [(one.backup.backup_id, one.stores) for one in plan.chain] == [("full", ("r2",)), ("inc", ("b2", "r2"))]
    assert names(plan)[0] == name(1, 6)


def test_a_restore_point_is_looked_for_from_the_newest_base_backup() -> None:
    """Where it lies before, PostgreSQL fails rather than stops at an older one of the same name."""
    plan = plan_restore(PLAIN, RecoveryTarget(TargetKind.NAME, name="before-deploy"))
    assert (plan.backup.backup_id, plan.commit_at_least, plan.commit_at_most) == ("two", None, day(9.75))
    assert plan.notes == (
        "The records do not say where restore point 'before-deploy' is. Recovery looks for it from base backup 'two' "
        "(2026-01-07 12:00:00+00:00) on. If it lies before, recovery fails at the end: then name an older base backup.",
    )


def test_a_hint_or_an_id_chooses_an_older_base_backup_for_an_xid() -> None:
    """The hint is a moment that the transaction is not before."""
    hinted = RecoveryTarget(TargetKind.XID, xid=1234, not_before_at=day(4))
    assert plan_restore(PLAIN, hinted).backup.backup_id == "one"
    given_id = RecoveryTarget(TargetKind.XID, xid=1234)
    assert plan_restore(PLAIN, given_id, base_backup="one").backup.backup_id == "one"


def test_a_chosen_base_backup_must_be_there_restorable_and_before_the_target() -> None:
    """Each case has its message."""
    with pytest.raises(RecoveryTargetError, match="base backup 'three' is not on r2"):
        plan_restore(PLAIN, END, base_backup="three")
    with pytest.raises(RecoveryTargetError, match="'two' is not restorable from r2 on the path to timeline 2"):
        plan_restore(FORK, END, base_backup="two")
    with pytest.raises(TargetOutsideError, match="is before the first moment"):
        plan_restore(PLAIN, to_time(day(4)), base_backup="two")


def test_unknown_commit_times_are_said_and_not_guessed() -> None:
    """The target may or may not be reached."""
    files = [*day_segments(1, range(1, 5)), segment(1, 5, day(6), times=CommitTimes.UNKNOWN)]
    plan = plan_restore(contents(files, TWO[:1]), to_time(day(5.5)))
    assert plan.notes == ("Commit times are not known up to the target: PostgreSQL fails if no commit comes after it.",)
    assert names(plan)[-1] == name(1, 5)


def test_without_any_base_backup_nothing_can_be_restored() -> None:
    """An archive alone is no way back."""
    with pytest.raises(RecoveryTargetError) as caught:
        plan_restore(contents(day_segments(1, range(1, 4))), END)
    assert caught.value.message == "no base backup is restorable from r2 on the path to timeline 1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": TargetKind.TIME}, "a recovery target of kind 'time' has the values []"),
        ({"kind": TargetKind.END, "xid": 5}, "a recovery target of kind 'end' has the values ['xid']"),
        ({"kind": TargetKind.XID, "xid": 2}, "transaction id 2 is outside 3 to 2**32 - 1"),
        (
            {"kind": TargetKind.NAME, "name": "x" * 64},
            f"the restore point name '{'x' * 64}' has 64 bytes, expected 1 to 63",
        ),
        (
            {"kind": TargetKind.TIME, "at": datetime(2026, 1, 1)},  # noqa: DTZ001 - the mistake itself
            "the recovery target '2026-01-01T00:00:00' has no time zone",
        ),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    """Before anything is planned."""
    with pytest.raises(RecoveryTargetError) as caught:
        RecoveryTarget(**fields)  # type: ignore[arg-type]
    assert caught.value.message == message


def check_nearest(archive: ArchiveContents, target: RecoveryTarget) -> None:
    """Plan to a moment that a refusal named; only a switch without the child's first segment may stand in the way."""
    try:
        plan_restore(archive, target)
    except TargetOutsideError:
        raise
    except RecoveryTargetError as error:
        assert "past the switch" in error.message


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(0, 30 * 24), st.booleans())
def test_a_plan_to_a_time_is_a_walk_that_reaches_it(world: World, hours: int, inclusive: bool) -> None:
    """It is on the timeline's way, consistent before the target, and a refusal's nearest moments can be reached."""
    archive, at = world.contents, day(hours / 24)
    for timeline in archive.paths:
        target = to_time(at, timeline=timeline, inclusive=inclusive)
        try:
            plan = plan_restore(archive, target)
        except TargetOutsideError as error:
            for nearest in (error.before, error.after):
                if nearest is not None:
                    check_nearest(archive, to_time(datetime.fromisoformat(nearest), timeline=timeline))
            continue
        except RecoveryTargetError:
            continue
        walks = oracle.walks(archive, oracle.holding(archive, archive.stores))
        (walk,) = [w for w in walks if (w.backup.backup_id, w.timeline) == (plan.backup.backup_id, timeline)]
        assert tuple(names(plan)) == walk.names[: len(plan.wal)]
        assert len(plan.wal) >= walk.consistent
        assert plan.backup.finished_at <= at
        assert all(file.stores for file in plan.wal)
        if plan.target.kind is TargetKind.TIME and not plan.notes:
            stop = oracle.last_commit(archive, names(plan)[-1])
            assert stop is not None and (stop > at or (stop == at and not inclusive))


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_each_recoverable_moment_has_a_plan(world: World) -> None:
    """The plan finds each moment that the walk can reach along a timeline."""
    archive = world.contents
    for walk in oracle.walks(archive, oracle.holding(archive, archive.stores)):
        commits = [at for one in walk.names if (at := oracle.last_commit(archive, one)) is not None]
        for at, _ in oracle.moments(archive, walk):
            if at <= commits[-1]:
                plan_restore(archive, to_time(at, timeline=walk.timeline, inclusive=False))
        stop = Lsn(walk.backup.start_lsn // SIZE * SIZE + len(walk.names) * SIZE - 1)
        assert plan_restore(archive, RecoveryTarget(TargetKind.LSN, lsn=stop, timeline=walk.timeline)).wal


def test_the_histories_of_all_timelines_on_the_way_are_listed() -> None:
    """As far as a store has them, the newest first."""
    child = history(2, TimelineHistory(1), 5.3)
    archive = contents(
        [*day_segments(1, range(1, 5)), *day_segments(2, range(5, 8)), *day_segments(3, [8, 9])],
        TWO[:1],
        histories=[child, history(3, child, 8.0)],
    )
    assert [file.name for file in plan_restore(archive, END).histories] == ["00000003.history", "00000002.history"]
