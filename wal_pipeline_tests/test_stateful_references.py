"""Tests that no volume goes while a base backup refers to it, whatever is done to stores, catalog and base backups."""

import logging
import shutil

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wal_pipeline_tests.support.stateful_references import ReferenceWorld
from wal_pipeline_tests.support.stateful_settings import settings_for
from wal_pipeline_tests.support.stateful_store import STORES
from wal_pipeline_tests.support.stateful_world import fast_folder

_RELATIONS = 7
stores = st.sampled_from(STORES)
numbers = st.integers(0, 1000)
relations = st.sets(st.integers(0, _RELATIONS - 1), max_size=_RELATIONS).map(sorted)


class References(RuleBasedStateMachine):
    """Draws base backups by files over several generations, and all that removes or brings back their objects."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.WARNING)  # of each accident
        self.folder = fast_folder()
        self.world = ReferenceWorld(self.folder)

    def teardown(self) -> None:
        """All that counts comes back."""
        try:
            self.world.check_restores()
        finally:
            self.world.scene.catalog.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            logging.disable(logging.NOTSET)

    @initialize(history=st.lists(st.tuples(st.booleans(), relations, st.integers(1, 40)), min_size=1, max_size=5))
    def begin(self, history: list[tuple[bool, list[int], int]]) -> None:
        """A cluster with large and small relations, and base backups of some days, of which some build on others."""
        self.world.change(range(_RELATIONS))
        self.world.change([_RELATIONS], factor=5)
        self.world.pass_time(1)
        for incremental, changed, hours in history:
            self.world.back_up(incremental=incremental)
            self.world.change(changed)
            self.world.pass_time(hours)

    @invariant()
    def what_counts_is_whole(self) -> None:
        """Each base backup that is counted as restorable on a store has there all that it names."""
        self.world.check()

    @rule(which=relations, factor=st.sampled_from((1, 1, 2, 4)), hides=st.booleans(), hours=st.integers(1, 40))
    def change(self, which: list[int], factor: int, hides: bool, hours: int) -> None:
        """Relations are rewritten, sometimes so that neither size nor time shows it, and time passes."""
        self.world.change(which, factor, hides=hides)
        self.world.pass_time(hours)

    @rule(
        which=relations,
        dropped=st.none() | st.integers(0, _RELATIONS),
        incremental=st.sampled_from((True, True, True, False)),
        down=st.sampled_from((None, None, None, *STORES)),
        forgets=st.booleans(),
    )
    def back_up(
        self, which: list[int], dropped: int | None, incremental: bool, down: str | None, forgets: bool
    ) -> None:
        """A base backup is taken after some relations changed, perhaps while a store is silent."""
        self.world.change(which)
        if dropped is not None:
            self.world.drop(dropped)
        self.world.pass_time(1)
        self.world.back_up(incremental=incremental, down=down, forgets=forgets)

    @rule(
        which=relations,
        days=st.integers(1, 3),
        cut=st.sampled_from((False, False, True)),
        alone=st.sampled_from((None, *STORES)),
    )
    def back_up_for_days(self, which: list[int], days: int, cut: bool, alone: str | None) -> None:
        """Others apply retention while a base backup is taken for days. It may die; the next one goes on with it.

        Its parent need not be the newest: one that was taken while the store ``alone`` was silent is no parent.
        """
        if alone is not None:
            self.world.back_up(incremental=False, down=alone)
        self.world.change(which)
        self.world.pass_time(1)
        self.world.back_up(incremental=True, upkeep_days=days, cut=cut)

    @rule(incremental=st.booleans())
    def cut_a_base_backup(self, incremental: bool) -> None:
        """A base backup dies when its volumes are handed over; the next one may go on with it."""
        self.world.back_up(incremental=incremental, cut=True)

    @rule(days=st.integers(0, 3), down=st.sampled_from((None, None, *STORES)), after_deletes=st.integers(0, 9))
    def expire(self, days: int, down: str | None, after_deletes: int) -> None:
        """Retention is applied; a store may be silent, or become so in the middle of it."""
        self.world.expire(days, down=down, after_deletes=after_deletes)

    @rule()
    def verify_and_repair(self) -> None:
        """Everything is read back, and healed from the other store."""
        self.world.repair()

    @rule(store=stores, number=numbers)
    def refill(self, store: str, number: int) -> None:
        """A person refills one base backup on a store."""
        self.world.refill(store, number)

    @rule(store=stores, number=numbers)
    def lose_an_object(self, store: str, number: int) -> None:
        """An object of a base backup is lost."""
        self.world.lose_object(store, number)

    @precondition(lambda self: len(self.world.made) > 2)
    @rule(store=stores, repairs=st.booleans())
    def lose_a_store(self, store: str, repairs: bool) -> None:
        """All base backups of a store are lost, and perhaps come back from the other one."""
        self.world.lose_base_backups(store)
        if repairs:
            self.world.repair()

    @rule(and_rebuild=st.booleans())
    def lose_catalog(self, and_rebuild: bool) -> None:
        """The catalog is deleted."""
        self.world.lose_catalog(and_rebuild=and_rebuild)

    @rule()
    def restore(self) -> None:
        """Whatever counts is restored, from each store alone."""
        self.world.check_restores()


TestReferences = References.TestCase
TestReferences.settings = settings_for(12, 10 if settings.default.derandomize else 300)  # the latter: make fuzz

if settings.default.derandomize:

    @pytest.mark.left_out
    class TestReferencesAtLength(References.TestCase):  # type: ignore[misc, valid-type]
        """The same with more examples."""

        settings = settings_for(12, 60)
