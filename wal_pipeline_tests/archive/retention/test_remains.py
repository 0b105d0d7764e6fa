"""What cannot be read counts as needed: whatever the undamaged archive would need is there after the damage's end."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import assume, given, settings

from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.retention.plan import RetentionPlan, Step, plan_retention
from wal_pipeline.archive.retention.proof import prove_plan
from wal_pipeline.archive.retention.remains import BrokenBackup, Floors, Remains
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.errors import RetentionError
from wal_pipeline.wal.names import history_name, require_file_name
from wal_pipeline_tests.support import archive_oracle as oracle
from wal_pipeline_tests.support.archive_worlds import DAY, SYSTEM, after, backup, day, name, segment
from wal_pipeline_tests.support.damaged_worlds import DamagedWorld, damaged_worlds

RULE = RetentionRule(window=10 * DAY, minimum_backups=1)
MANY = settings(max_examples=150, deadline=None)


def planned(world: DamagedWorld, rule: RetentionRule = RULE) -> RetentionPlan | None:
    """Plan the damaged store; None where retention leaves it alone."""
    try:
        return plan_retention(
            world.seen, world.store, world.truth.now, rule, stored_bytes=world.sizes, remains=world.remains
        )
    except RetentionError as error:
        assert "so nothing expires" in error.message
        return None


def check_truth(world: DamagedWorld, plan: RetentionPlan, *, same_stop: bool) -> None:
    """Put back what was damaged and not removed: each moment of the window can be recovered as before."""
    archive, store = world.truth.contents, world.store
    left = after(world.truth, store, plan.expire)
    walks = oracle.walks(left, oracle.holding(left, [store]))
    for walk in oracle.walks(archive, oracle.holding(archive, [store])):
        for at, stop in oracle.moments(archive, walk):
            in_window = plan.window_starts_at <= at <= world.truth.now
            if in_window and oracle.last_commit(archive, stop) <= world.truth.now:
                assert any(oracle.reaches(left, one, at, stop if same_stop else None) for one in walks)


@MANY
@given(damaged_worlds())
def test_nothing_goes_that_the_undamaged_archive_needs(world: DamagedWorld) -> None:
    """Damaged and unreadable base backups, missing segments, unreadable histories; the proof has no objection."""
    plan = planned(world)
    if plan is not None:
        check_truth(world, plan, same_stop=True)
        prove_plan(plan, world.listed())


@MANY
@given(damaged_worlds(skew=True))
def test_nothing_goes_that_the_undamaged_archive_needs_under_wrong_clocks(world: DamagedWorld) -> None:
    """Some base backup that finished before still leads past each moment; the proof has no objection."""
    plan = planned(world)
    if plan is not None:
        check_truth(world, plan, same_stop=False)
        prove_plan(plan, world.listed())


@MANY
@given(damaged_worlds(skew=True))
def test_from_the_start_in_the_id_of_what_cannot_be_read_nothing_goes(world: DamagedWorld) -> None:
    """On its own timeline and on every newer one; and no older base backup, on which it may be built."""
    plan = planned(world)
    if plan is None:
        return
    going = {step.name for step in plan.expire if step.step is Step.BACKUP_MANIFEST}
    files = [require_file_name(step.name) for step in plan.expire if step.step is Step.WAL_FILE]
    staying = [one for one in world.remains.broken if one.backup_id not in going]
    for one in staying:
        first = require_file_name(one.backup_id[-24:])
        assert not [
            file.name for file in files if file.timeline >= first.timeline and file.name[8:24] >= first.name[8:]
        ]
        assert not [key for key in going if (key in one.chain if one.chain is not None else key < one.backup_id)]


@MANY
@given(damaged_worlds())
def test_what_goes_unread_has_a_whole_one_that_stands_for_it(world: DamagedWorld) -> None:
    """It is newer, or on a newer timeline, can be restored, stays, and finished before the window began."""
    plan = planned(world)
    if plan is None:
        return
    going = {step.name for step in plan.expire if step.step is Step.BACKUP_MANIFEST}
    restorable = oracle.restorable(world.seen, oracle.holding(world.seen, [world.store])) - going
    standing = [world.seen.backups[key].backup for key in restorable]
    for one in world.remains.broken:
        if one.backup_id in going:
            old = [b for b in standing if b.finished_at <= plan.window_starts_at]
            assert [b for b in old if b.backup_id > one.backup_id or b.timeline > one.first.timeline]


@settings(max_examples=60, deadline=None)
@given(damaged_worlds())
def test_damage_holds_nothing_for_ever(world: DamagedWorld) -> None:
    """Once a base backup that is newer and whole has left the window, all that was broken goes."""
    archive = world.truth.contents
    assume(not world.remains.unread_histories and archive.main is not None)
    last = 1 + max(max(files, default=1) for files in archive.segments.values())
    timeline = archive.main.timeline
    assume(timeline == 1 or history_name(timeline).name in archive.copies["a"])
    later = backup(f"20260501T000000Z-{name(timeline, last)}", timeline, last + 0.1, last + 0.5)
    later = replace(later, started_at=day(120), finished_at=day(121))
    seen = ArchiveContents.of(
        SYSTEM,
        files=[*world.seen.files.values(), segment(later.timeline, last, day(121), commits=(day(121), day(121)))],
        copies={store: {*names, name(later.timeline, last)} for store, names in world.seen.copies.items()},
        backups=[*world.seen.backups.values(), HeldBackup(later, frozenset({"a", "b"}))],
        histories=world.seen.histories,
    )
    sizes = dict.fromkeys(seen.copies["a"], 1)
    plan = plan_retention(seen, "a", day(200), RULE, stored_bytes=sizes, remains=world.remains)
    going = {step.name for step in plan.expire if step.step is Step.BACKUP_MANIFEST}
    assert {one.backup_id for one in world.remains.broken} <= going


def broken(backup_id: str) -> BrokenBackup:
    return BrokenBackup(backup_id, "r2: damaged", day(1), 10)


def test_an_id_says_when_a_base_backup_began_and_where() -> None:
    """The last 24 characters are its first segment."""
    one = broken("20260102T030405Z-00000002000000000000000A")
    assert one.started_at == day(1) + timedelta(hours=3, minutes=4, seconds=5)
    assert one.first.name == "00000002000000000000000A"


def test_what_is_not_known_to_be_full_may_be_built_on_all_that_is_older() -> None:
    """Where its chain is known, only on that."""
    unread = broken("20260105T000000Z-000000010000000000000005")
    assert unread.may_be_built_on("20260104T000000Z-000000010000000000000004", day(3))
    assert not unread.may_be_built_on("20260106T000000Z-000000010000000000000006", day(5))
    known = replace(unread, chain=("20260102T000000Z-000000010000000000000002",))
    assert known.may_be_built_on("20260102T000000Z-000000010000000000000002", day(1))
    assert not known.may_be_built_on("20260104T000000Z-000000010000000000000004", day(3))


def test_a_floor_counts_on_its_own_timeline_and_on_newer_ones() -> None:
    """From the start of the lowest base backup that can lie there."""
    floors = Floors.of([broken(f"20260102T000000Z-{name(2, 7)}"), broken(f"20260102T000000Z-{name(1, 9)}")])
    needed = {(t, n): floors.needed_by(require_file_name(name(t, n))) for t in (1, 2, 3) for n in (6, 7, 8, 9)}
    assert {place for place, key in needed.items() if key} == {(1, 9), *((t, n) for t in (2, 3) for n in (7, 8, 9))}
    assert needed[2, 8] == f"20260102T000000Z-{name(2, 7)}"
    assert floors.needed_by(require_file_name(f"{name(2, 7)}.00000028.backup")) is not None


def test_a_store_without_damage_has_no_remains() -> None:
    """Nothing is known, and nothing is left out."""
    assert Remains().known == {}
