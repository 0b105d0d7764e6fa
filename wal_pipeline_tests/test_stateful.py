"""Tests archive, backfill, expire, verify and repair in any order, with faults and crashes at any point."""

import shutil
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.stateful_backups import ACCIDENTS
from wal_pipeline_tests.support.stateful_settings import settings_for
from wal_pipeline_tests.support.stateful_store import CALLS, STORES, TROUBLES, Trouble
from wal_pipeline_tests.support.stateful_world import World, fast_folder

trouble = st.builds(
    Trouble,
    store=st.sampled_from(STORES),
    call=st.sampled_from(CALLS),
    nth=st.integers(1, 5),
    kind=st.sampled_from(TROUBLES),
)
troubles = st.lists(trouble, max_size=3)
numbers = st.integers(0, 1000)


class Archive(RuleBasedStateMachine):
    """Checks the design's invariants after every step: 1, 2, 3, 4 (for windows), 5 and 7."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = fast_folder()
        self.world = World(self.folder)

    def teardown(self) -> None:
        """Without faults the spool becomes empty, and each file is good on each store."""
        try:
            self.come_to_rest()
        finally:
            self.world.scene.catalog.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def come_to_rest(self) -> None:
        """Archive everything, let a person look at the quarantine, and heal the spoilt copies."""
        self.world.scene.settle()
        self.world.archive()
        while self.world.judge_strangers():
            self.world.archive()
        if self.world.spoilt:
            self.world.verify()
        self.world.check()
        assert self.world.scene.spooled() == []
        self.world.check_windows(at_rest=True)

    @initialize(count=st.integers(0, 3), archived=st.booleans())
    def begin_with_wal(self, count: int, archived: bool) -> None:
        """Most stories begin with some segments, so that the rules which need one are drawn early."""
        if count:
            self.world.write(count)
        if archived:
            self.archive(troubles=[])

    def pick(self, number: int) -> str:
        """Return one of the archived segments."""
        return name_of(1 + number % (self.world.next_number - 1))

    @invariant()
    def nothing_is_lost(self) -> None:
        """Each file is in the spool or good on each store, and no content was replaced."""
        self.world.check()

    @invariant()
    def windows_promise_what_is_there(self) -> None:
        """The recovery windows of the stores alone end exactly where their files end."""
        self.world.check_windows(at_rest=False)

    @rule(count=st.integers(1, 3))
    def write(self, count: int) -> None:
        """PostgreSQL archives segments."""
        self.world.write(count)

    @rule(troubles=troubles)
    def archive(self, troubles: list[Trouble]) -> None:
        """Run the archiver, which may fail or die."""
        self.world.scene.settle()
        with self.world.trouble(troubles):
            self.world.archive()

    @rule(events=st.integers(1, 12))
    def archive_and_die(self, events: int) -> None:
        """The process that records the run's events dies between two of them."""
        self.world.scene.settle()
        with self.world.trouble([]):
            self.world.archive(events=events)

    @rule(down=st.sampled_from(STORES))
    def archive_with_one_store_down(self, down: str) -> None:
        """The other store gets every file, and the spool keeps the files that the dead store lacks."""
        world = self.world
        world.scene.settle()
        waiting = [name for name in world.scene.spooled() if name in world.truth]
        world.scene.stores[down].down = True  # type: ignore[attr-defined]
        try:
            with world.trouble([]):
                world.archive()
        finally:
            world.scene.stores[down].down = False  # type: ignore[attr-defined]
        other = next(name for name in STORES if name != down)
        for name in waiting:
            right = not world.scene.quarantined() and (other, name) not in world.spoilt
            assert not right or world.is_good(other, name), f"'{name}' waits for {down} and is not on {other}"

    @precondition(lambda self: self.world.next_number > 1)
    @rule(number=numbers)
    def archive_twice(self, number: int) -> None:
        """PostgreSQL archives a file again, as it may after a crash."""
        name = self.pick(number)
        if name not in self.world.scene.spooled():
            self.world.spool(name, self.world.truth[name])

    @precondition(lambda self: self.world.next_number > 1)
    @rule(number=numbers)
    def archive_other_content(self, number: int) -> None:
        """Somebody archives other content under a name that both stores hold."""
        world, name = self.world, self.pick(number)
        if name in world.scene.spooled() or not all(world.is_good(store, name) for store in STORES):
            return
        world.strangers.append(world.truth[name][:-8] + len(world.strangers).to_bytes(8, "big"))
        world.spool(name, world.strangers[-1])

    @precondition(lambda self: self.world.next_number > 1)
    @rule(number=numbers, count=st.integers(1, 3), to=st.sampled_from(STORES), troubles=troubles)
    def backfill(self, number: int, count: int, to: str, troubles: list[Trouble]) -> None:
        """Backfill some partitions on one store."""
        names = {self.pick(number + step) for step in range(count)}
        with self.world.trouble(troubles):
            list(self.world.scene.refiller().refill(names, [to]))

    @precondition(lambda self: self.world.next_number > 1)
    @rule(number=numbers, store=st.sampled_from(STORES), how=st.sampled_from(["half", "flip", "swallow"]))
    def spoil(self, number: int, store: str, how: str) -> None:
        """Damage or delete a copy on one store."""
        if self.world.records_lost and self.world.strangers_wait():  # nothing tells the wrong file from the lost one
            return
        self.world.spoil(store, self.pick(number), how)

    @rule(number=numbers, store=st.sampled_from(STORES), how=st.sampled_from(ACCIDENTS))
    def spoil_a_base_backup(self, number: int, store: str, how: str) -> None:
        """Damage or delete a manifest or a volume, perhaps on both stores in the end."""
        self.world.backups.spoil(store, number, how)

    @rule(troubles=troubles)
    def verify_and_repair(self, troubles: list[Trouble]) -> None:
        """Verify everything, and heal the faults."""
        with self.world.trouble(troubles):
            self.world.verify()

    @rule(number=numbers, troubles=troubles)
    def restore_a_file(self, number: int, troubles: list[Trouble]) -> None:
        """A recovering server asks for a file, perhaps the next one, and gets its bytes, an error or proven absence."""
        name = name_of(1 + number % self.world.next_number)
        with self.world.trouble(troubles):
            self.world.restore(name, calm=False)
        self.world.restore(name, calm=True)

    @rule()
    def back_up(self) -> None:
        """A base backup begins in the open segment, and ends it."""
        self.world.scene.ahead += timedelta(minutes=10)
        self.world.back_up()

    @precondition(lambda self: not self.world.backups.running)
    @rule(days=st.integers(0, 6))
    def begin_a_base_backup(self, days: int) -> None:
        """A base backup stores its objects, and then waits for PostgreSQL's archiver, perhaps for days of upkeep."""
        self.world.scene.ahead += timedelta(minutes=10)
        self.world.begin_backup()
        if days:
            self.verify_and_repair(troubles=[])
            self.expire(days=days, troubles=[])

    @precondition(lambda self: self.world.backups.running)
    @rule()
    def finish_a_base_backup(self) -> None:
        """It stores its manifest, and all that it stored before is still there."""
        self.world.finish_backup()

    @rule(store=st.sampled_from(STORES), back=st.integers(0, 3), begin=st.integers(0, 2), count=st.integers(1, 3))
    def ship(self, store: str, back: int, begin: int, count: int) -> None:
        """Pieces of the open segment come to a store, or of one that was finished lately, perhaps with a hole."""
        world = self.world
        name = name_of(max(1, world.next_number - back))
        world.pieces.ship(store, name, begin, count, world.scene.clock())

    @rule(days=st.integers(1, 6), troubles=troubles)
    def expire(self, days: int, troubles: list[Trouble]) -> None:
        """Days pass and retention is applied. It removes nothing that a base backup on that store needs."""
        if self.world.strangers_wait():  # once the right file has expired, nobody can tell the wrong one from it
            return
        self.world.scene.ahead += timedelta(days=days)
        before = self.world.good_on()
        backups = {store: self.world.backups.ids_on(store) for store in STORES}
        pieces = {store: self.world.pieces.on(store) for store in STORES}
        with self.world.trouble(troubles):
            self.world.expire()
        self.world.check_expiry(before, backups, pieces)

    @rule(and_rebuild=st.booleans())
    def lose_catalog(self, and_rebuild: bool) -> None:
        """The catalog is deleted in the middle of the work."""
        if self.world.spoilt and self.world.strangers_wait():  # nothing would tell the wrong file from the lost one
            return
        self.world.lose_catalog(and_rebuild=and_rebuild)


TestArchive = Archive.TestCase
TestArchive.settings = settings_for(14, 12 if settings.default.derandomize else 400)  # the latter: make fuzz

if settings.default.derandomize:

    @pytest.mark.left_out
    class TestArchiveAtLength(Archive.TestCase):  # type: ignore[misc, valid-type]
        """The same with more examples."""

        settings = settings_for(14, 40)
