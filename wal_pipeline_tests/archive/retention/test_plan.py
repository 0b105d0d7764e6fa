"""Retention decides which objects stay and why, which expire, and in which order."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings

from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.retention.plan import Expired, ObjectKind, RetentionPlan, Step, plan_retention
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.errors import RetentionError
from wal_pipeline.wal.timeline import TimelineHistory
from wal_pipeline_tests.support import archive_oracle as oracle
from wal_pipeline_tests.support.archive_worlds import (
    DAY,
    World,
    after,
    backup,
    contents,
    day,
    day_segments,
    history,
    name,
    other_file,
    segment,
    worlds,
)

RULE = RetentionRule(window=10 * DAY, minimum_backups=1)
LEAN = settings(max_examples=100, deadline=None)


def expired(plan: RetentionPlan) -> list[str]:
    """Return the objects that expire, by name."""
    return [step.name for step in plan.expire if step.step is not Step.BACKUP_OBJECTS]


def reasons(plan: RetentionPlan) -> dict[str, str]:
    """Return why each thing stays."""
    return {entry.name: entry.reason for entry in plan.keep}


def test_the_newest_base_backup_before_the_window_and_all_later_ones_stay() -> None:
    """Older base backups expire, with the WAL before the oldest that stays."""
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 8.1, 8.5), backup("c", 1, 15.1, 15.5)]
    plan = plan_retention(contents(day_segments(1, range(1, 21)), backups), "r2", day(20), RULE)
    assert expired(plan) == ["a", *(name(1, number) for number in range(1, 8))]
    assert reasons(plan) == {
        "b": "the newest base backup before the window began, on the path to timeline 1",
        "c": "younger than the window",
        **{name(1, number): "needed by base backup b" for number in range(8, 15)},
        **{name(1, number): "needed by base backup c" for number in range(15, 21)},
    }


def test_the_steps_say_why_and_how_much() -> None:
    """The manifest is removed first, and the bytes are counted once."""
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 3.1, 3.5)]
    archive = contents(day_segments(1, [2, 3, 4]), backups)
    plan = plan_retention(archive, "r2", day(30), RULE, stored_bytes={name(1, n): 1000 for n in (2, 3, 4)})
    why = "finished before the window began at 2026-01-21T00:00:00+00:00, and no moment in it needs this base backup"
    assert plan.expire == (
        Expired("a", Step.BACKUP_MANIFEST, 0, why),
        Expired("a", Step.BACKUP_OBJECTS, 10**8, why),
        Expired(name(1, 2), Step.WAL_FILE, 1000, "before the start of base backup b, the oldest that is kept"),
    )
    assert plan.freed_bytes == 10**8 + 1000
    assert plan.kept_bytes == 10**8 + 2000


def test_the_newest_base_backups_stay_however_old() -> None:
    """At least M of them."""
    backups = [backup(key, 1, number + 0.1, number + 0.5) for number, key in enumerate("abc", start=1)]
    rule = RetentionRule(window=10 * DAY, minimum_backups=2)
    plan = plan_retention(contents(day_segments(1, range(1, 5)), backups), "r2", day(99), rule)
    assert expired(plan) == ["a", name(1, 1)]
    assert reasons(plan)["b"] == "one of the newest 2 base backups"


def test_a_base_backup_with_damaged_pages_never_replaces_a_sound_one() -> None:
    """However many follow: what the pages held can be restored from the sound one alone, with all WAL since."""
    pages = (DamagedPages("base/5/16384", (3,), 1),)
    bad = [
        replace(backup(key, 1, at + 0.1, at + 0.5), damaged_pages=pages) for key, at in (("c", 5), ("d", 8), ("e", 15))
    ]
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 3.1, 3.5), *bad]
    plan = plan_retention(contents(day_segments(1, range(1, 21)), backups), "r2", day(20), RULE)
    assert expired(plan) == ["a", name(1, 1), name(1, 2)]
    assert reasons(plan)["d"] == "the newest base backup before the window began, on the path to timeline 1"
    assert reasons(plan)["b"] == (
        "the newest base backup without damaged pages before the window began, on the path to timeline 1"
    )
    old = plan_retention(contents(day_segments(1, range(1, 21)), backups), "r2", day(99), RULE)
    assert expired(old) == ["a", name(1, 1), name(1, 2)]


def test_a_base_backup_that_is_not_restorable_here_does_not_count_as_the_one_before_the_window() -> None:
    """Neither for the window nor as one of the newest."""
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 8.1, 8.5)]
    archive = contents(day_segments(1, range(1, 21)), backups, missing={"r2": [name(1, 8)]})
    assert "a" in reasons(plan_retention(archive, "r2", day(20), RULE))


def test_what_another_store_can_refill_counts_as_if_it_were_here() -> None:
    """A segment missing on b2 today would cut off the base backup that the window needs."""
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 5.1, 5.5), backup("c", 1, 15.1, 15.5)]
    archive = contents(day_segments(1, range(1, 21)), backups, missing={"b2": [name(1, 6)]}, stores=["r2", "b2"])
    assert reasons(plan_retention(archive, "b2", day(20), RULE))["b"].startswith("the newest base backup before")


def test_incremental_chains_stay_whole() -> None:
    """The full one stays, though it is older than one that expires."""
    backups = [backup("full", 1, 2.1, 2.5), backup("mid", 1, 4.1, 4.5), backup("inc", 1, 8.1, 8.5, parent="full")]
    plan = plan_retention(contents(day_segments(1, range(1, 21)), backups), "r2", day(20), RULE)
    assert reasons(plan)["full"] == "parent of incremental inc"
    assert expired(plan) == ["mid", name(1, 1)]


def test_children_go_before_their_parents() -> None:
    """A crash never leaves an incremental base backup without its parent."""
    backups = [
        backup("a-full", 1, 2.1, 2.5),
        backup("b-inc", 1, 3.1, 3.5, parent="a-full"),
        backup("c-inc", 1, 4.1, 4.5, parent="b-inc"),
        backup("d", 1, 8.1, 8.5),
    ]
    plan = plan_retention(contents(day_segments(1, range(2, 21)), backups), "r2", day(20), RULE)
    assert expired(plan)[:3] == ["c-inc", "b-inc", "a-full"]


def test_an_abandoned_branch_stays_while_a_moment_of_it_is_in_the_window() -> None:
    """Timeline 1 was left on day 12, and went on to day 16."""
    files = [*day_segments(1, range(1, 16)), *day_segments(2, range(12, 21))]
    archive = contents(files, [backup("a", 1, 2.1, 2.5)], histories=[history(2, 1, 12.3)])
    kept = reasons(plan_retention(archive, "r2", day(25), RULE))
    assert kept[name(1, 15)] == "needed by base backup a"


def test_an_abandoned_branch_goes_from_its_end_once_it_is_too_old() -> None:
    """The newest first, so that a crash leaves no hole; the shared part before the switch stays."""
    files = [*day_segments(1, range(1, 16)), *day_segments(2, range(12, 21))]
    archive = contents(files, [backup("a", 1, 2.1, 2.5)], histories=[history(2, 1, 12.3)])
    plan = plan_retention(archive, "r2", day(40), RULE)
    assert expired(plan) == [name(1, 15), name(1, 14), name(1, 13), name(1, 12), name(1, 1)]
    assert plan.expire[0].reason == "no base backup can recover along timeline 1 here to a moment in the window"


def test_an_idle_timeline_stays_if_it_is_the_last_that_was_archived() -> None:
    """A restored copy that archived into the same place does not make production's timeline an abandoned one."""
    files = [*day_segments(1, range(1, 16)), segment(2, 5, day(6))]
    archive = contents(files, [backup("a", 1, 2.1, 2.5)], histories=[history(2, 1, 5.3)])
    assert name(1, 15) in reasons(plan_retention(archive, "r2", day(90), RULE))


def test_a_lost_history_file_does_not_hide_the_wal_before_the_switch() -> None:
    """Timeline 2 cannot be followed from here, but the moments before it can be reached along timeline 1."""
    files = [*day_segments(1, range(1, 12)), *day_segments(2, range(12, 21))]
    archive = contents(
        files,
        [backup("a", 1, 2.1, 2.5), backup("b", 1, 11.1, 11.5)],
        histories=[history(2, 1, 12.0)],
        missing={"r2": ["00000002.history"]},
    )
    kept = reasons(plan_retention(archive, "r2", day(20), RULE))
    assert kept["a"] == "the newest base backup before the window began, on the path to timeline 1"


def test_history_files_stay_for_ever() -> None:
    """Also that of a timeline of which nothing else is left."""
    archive = contents(day_segments(1, range(1, 21)), [backup("a", 1, 8.1, 8.5)], histories=[history(2, 1, 3.3)])
    assert reasons(plan_retention(archive, "r2", day(400), RULE))["00000002.history"] == "history file"


def test_backup_history_and_partial_files_go_with_their_position() -> None:
    """They stay where the segment beside them stays."""
    names = [f"{name(1, number)}{tail}" for number in (2, 8) for tail in (".00000028.backup", ".partial")]
    files = [*day_segments(1, range(1, 21)), *(other_file(one, day(3)) for one in names)]
    plan = plan_retention(contents(files, [backup("a", 1, 8.1, 8.5)]), "r2", day(30), RULE)
    assert set(names) & set(expired(plan)) == set(names[:2])
    assert {reasons(plan)[one] for one in names[2:]} == {"needed by base backup a"}


def test_the_partial_segment_at_a_switch_stays_with_the_timeline_before_it() -> None:
    """Its number is the child's, on the path to the child."""
    partial = f"{name(1, 12)}.partial"
    files = [*day_segments(1, range(1, 12)), *day_segments(2, range(12, 21)), other_file(partial, day(13))]
    archive = contents(files, [backup("a", 1, 2.1, 2.5)], histories=[history(2, 1, 12.3)])
    assert reasons(plan_retention(archive, "r2", day(60), RULE))[partial] == "needed by base backup a"


def test_wal_of_a_timeline_whose_history_is_not_known_stays() -> None:
    """Nobody can say which base backup leads to it."""
    files = [*day_segments(1, range(1, 12)), *day_segments(2, range(12, 21))]
    plan = plan_retention(contents(files, [backup("a", 1, 8.1, 8.5)]), "r2", day(90), RULE)
    assert reasons(plan)[name(2, 12)] == "the history of timeline 2 is not known"
    assert "r2: all WAL of timeline 2 stays, because its history is not known" in plan.warnings


def test_a_store_without_any_restorable_base_backup_is_left_alone() -> None:
    """It has one, but not its WAL."""
    archive = contents(day_segments(1, range(1, 5)), [backup("a", 1, 2.1, 3.5)], missing={"r2": [name(1, 3)]})
    with pytest.raises(RetentionError) as caught:
        plan_retention(archive, "r2", day(90), RULE)
    assert caught.value.message == "r2: none of 1 base backups is restorable, so nothing expires"


def test_without_base_backups_the_age_of_a_file_decides() -> None:
    """And the plan says that nothing can be recovered."""
    plan = plan_retention(contents(day_segments(1, range(1, 21))), "r2", day(21), RULE)
    assert expired(plan) == [name(1, number) for number in range(1, 11)]
    assert plan.expire[0].reason == "older than the window, and no base backup leads to it"
    assert set(reasons(plan).values()) == {"younger than the window"}
    assert plan.warnings == ("r2: has no base backup, so no recovery from it is possible; files expire by their age",)


def test_a_store_without_base_backups_keeps_what_those_of_another_store_need() -> None:
    """They may be refilled from there."""
    archive = contents(day_segments(1, range(1, 21)), {backup("a", 1, 4.1, 4.5): ["r2"]}, stores=["r2", "b2"])
    plan = plan_retention(archive, "b2", day(90), RULE)
    assert expired(plan) == [name(1, number) for number in (1, 2, 3)]


def test_a_base_backup_that_the_store_will_not_let_go_keeps_its_wal() -> None:
    """It would look restorable, so it is kept restorable."""
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 8.1, 8.5)]
    plan = plan_retention(contents(day_segments(1, range(1, 21)), backups), "r2", day(30), RULE, locked=["a"])
    assert expired(plan) == [name(1, 1)]
    assert reasons(plan)["a"] == "locked by the store"


def test_a_clock_before_everything_expires_no_base_backup() -> None:
    """All are then younger than the window."""
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 8.1, 8.5)]
    plan = plan_retention(contents(day_segments(1, range(2, 21)), backups), "r2", day(-900), RULE)
    assert expired(plan) == []
    assert next(line for line in plan.warnings if "future" in line) == (
        "base backup 'a' finished in the future: a clock was wrong"
    )


def test_a_base_backup_dated_before_an_older_one_does_not_stand_for_the_window() -> None:
    """The server's clock went back: by its place in the WAL it is younger than it says."""
    backups = [backup("a", 1, 2.1, 2.5), backup("b", 1, 14.1, 14.5), backup("c", 1, 16.1, 16.5, at=day(5))]
    plan = plan_retention(contents(day_segments(1, range(1, 21)), backups), "r2", day(20), RULE)
    assert {"a", "b", "c"} <= set(reasons(plan))


def test_copies_that_are_not_verified_expire_too() -> None:
    """The store has the object, damaged as it is."""
    archive = contents(day_segments(1, range(1, 21)), [backup("a", 1, 8.1, 8.5)], missing={"r2": [name(1, 3)]})
    sizes = {name(1, number): 10 for number in range(1, 21)}
    assert name(1, 3) in expired(plan_retention(archive, "r2", day(60), RULE, stored_bytes=sizes))


def test_a_silent_archive_is_warned_of() -> None:
    """Either archiving stopped or this clock is wrong."""
    archive = contents(day_segments(1, range(1, 5)), [backup("a", 1, 2.1, 2.5)])
    assert plan_retention(archive, "r2", day(90), RULE).warnings == (
        "nothing was archived since 2026-01-06T00:00:00+00:00: check archiving and this clock",
    )


def planned(world: World, store: str, rule: RetentionRule = RULE) -> RetentionPlan:
    """Plan; a store that retention leaves alone is of no interest."""
    held = oracle.holding(world.contents, [store])
    try:
        plan = plan_retention(world.contents, store, world.now, rule)
    except RetentionError:
        assert held.backups
        assert not oracle.restorable(world.contents, held)
        assume(False)
        raise
    return plan


def check_moments(world: World, *, same_stop: bool) -> None:
    """Each moment of the window that could be recovered from a store still can, after all steps."""
    for store in world.contents.stores:
        plan = planned(world, store)
        left = after(world, store, plan.expire)
        walks = oracle.walks(left, oracle.holding(left, [store]))
        for walk in oracle.walks(world.contents, oracle.holding(world.contents, [store])):
            for at, stop in oracle.moments(world.contents, walk):
                # a commit from the future comes from a wrong clock, and no time in the window is promised by it
                if plan.window_starts_at <= at <= world.now and oracle.last_commit(world.contents, stop) <= world.now:
                    assert any(oracle.reaches(left, one, at, stop if same_stop else None) for one in walks)


@LEAN
@given(worlds())
def test_no_moment_of_the_window_is_lost(world: World) -> None:
    """It is still recovered to the very same segment, from this store alone."""
    check_moments(world, same_stop=True)


@LEAN
@given(worlds(skew=True))
def test_no_moment_of_the_window_is_lost_to_wrong_clocks(world: World) -> None:
    """Whatever the clocks said, some base backup that finished before leads past it."""
    check_moments(world, same_stop=False)


@LEAN
@given(worlds(skew=True))
def test_a_crash_between_any_two_steps_leaves_no_lie_behind(world: World) -> None:
    """Each base backup that has its manifest and could be restored still can, and has its objects and its parents."""
    for store in world.contents.stores:
        plan = planned(world, store)
        could = oracle.restorable(world.contents, oracle.holding(world.contents, [store]))
        for count in range(len(plan.expire) + 1):
            left = after(world, store, plan.expire[:count])
            held = oracle.holding(left, [store])
            assert oracle.restorable(left, held) == could & held.backups
            emptied = {step.name for step in plan.expire[:count] if step.step is Step.BACKUP_OBJECTS}
            assert not emptied & held.backups


@LEAN
@given(worlds())
def test_a_store_never_loses_its_last_restorable_base_backup(world: World) -> None:
    """As many as the rule's minimum stay restorable, as far as there were as many."""
    rule = RetentionRule(window=10 * DAY, minimum_backups=2)
    for store in world.contents.stores:
        plan = planned(world, store, rule)
        before = oracle.restorable(world.contents, oracle.holding(world.contents, [store]))
        left = after(world, store, plan.expire)
        assert len(oracle.restorable(left, oracle.holding(left, [store]))) >= min(2, len(before))


@LEAN
@given(worlds())
def test_planning_again_finds_nothing_more(world: World) -> None:
    """All that the rule does not keep expires at once."""
    for store in world.contents.stores:
        plan = planned(world, store)
        left = after(world, store, plan.expire)
        assert plan_retention(left, store, world.now, RULE).expire == ()


@LEAN
@given(worlds(holes=False))
def test_nothing_needless_stays(world: World) -> None:
    """In a whole archive with right clocks each kept thing has a cause that can be checked by itself."""
    archive = world.contents
    assume(archive.backups)
    plan = planned(world, "a")
    kept = {one.name for one in plan.keep if one.kind is ObjectKind.BASE_BACKUP}
    walks = oracle.walks(archive, oracle.holding(archive, ["a"]))
    assert kept <= causes(world, plan, walks)
    reached = {one for walk in walks if walk.backup.backup_id in kept for one in walk.names}
    young = {key for key, file in archive.files.items() if file.spooled_at > plan.window_starts_at}
    segments = {one.name for one in plan.keep if one.kind is ObjectKind.WAL_FILE and "history" not in one.name}
    assert segments <= reached | young


def causes(world: World, plan: RetentionPlan, walks: list[oracle.Walk]) -> set[str]:
    """Return the base backups that the rule keeps, read as a person would read it."""
    archive, cutoff_at = world.contents, plan.window_starts_at
    backups = [one.backup for one in archive.backups.values()]
    newest = max((walk.backup for walk in walks), key=lambda one: (one.timeline, one.stop_lsn, one.backup_id))
    found = {newest.backup_id} | {one.backup_id for one in backups if one.finished_at > cutoff_at}
    newest_timeline = max({one.timeline for one in archive.files.values()} | {one.timeline for one in backups})
    # of two that are as young, the newer timeline's
    last = max(archive.files.values(), key=lambda file: (file.spooled_at, file.timeline))
    for timeline in {walk.timeline for walk in walks}:
        mine = [walk for walk in walks if walk.timeline == timeline]
        old = [walk.backup for walk in mine if walk.backup.finished_at <= cutoff_at]
        read = {one for walk in mine for one in walk.names}
        is_live = timeline == newest_timeline or last.name in read
        if old and (is_live or any(archive.files[one].spooled_at >= cutoff_at for one in read)):
            cover = max(old, key=lambda one: (one.stop_lsn, one.timeline, one.backup_id))
            way = archive.histories.get(timeline, TimelineHistory(timeline))
            on_way = [one for one in backups if way.holds(one.timeline, one.stop_lsn)]
            found |= {cover.backup_id} | {one.backup_id for one in on_way if one.stop_lsn > cover.stop_lsn}
    return found | {parent for key in found for parent in parents(archive, key)}


def parents(archive: ArchiveContents, backup_id: str) -> list[str]:
    """Return the ids of those that a base backup is built on."""
    parent = archive.backups[backup_id].backup.parent_id
    return [] if parent is None else [parent, *parents(archive, parent)]
