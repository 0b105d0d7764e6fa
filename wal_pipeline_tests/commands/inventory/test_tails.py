"""Pieces in a plan: they must be readable, and continue what is archived."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.archive_get.wal_source import WalUnreachableError
from wal_pipeline.commands.inventory.listing import list_store
from wal_pipeline.commands.inventory.tails import read_tails_of
from wal_pipeline.stores.base import StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.planned_wal import END, LAYOUT, NAMES, inventory, plan_of, ship, two_stores, written
from wal_pipeline_tests.support.restore_archive import WatchedStore
from wal_pipeline_tests.support.wal_writer import MIB


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, WatchedStore]:
    """Two stores with segments 1 and 2."""
    return two_stores(tmp_path)


def test_a_plan_ends_with_pieces_that_continue_the_archive(stores: dict[str, WatchedStore]) -> None:
    """Their first page begins with the rest of the record that the last whole segment ends with."""
    ship(stores["r2"], written(100)[3], 0, 100_000, END)
    plan = plan_of(inventory(stores))
    assert plan.tail is not None
    assert plan.window.latest_lsn == Lsn(3 * MIB + END)


def test_pieces_that_continue_nothing_are_left_out(stores: dict[str, WatchedStore]) -> None:
    """Another server of the same name shipped them: the plan ends before them, and says why."""
    ship(stores["r2"], written(5000)[3], 0, 100_000, END)
    plan = plan_of(inventory(stores))
    assert (plan.tails, plan.window.latest_lsn, plan.bound) == ((), Lsn(3 * MIB), NAMES[2])
    assert any(
        f"before '{NAMES[3]}', which is there and cannot be replayed: it does not continue" in one for one in plan.notes
    )


def test_an_open_segment_must_continue_a_finished_one_in_pieces(stores: dict[str, WatchedStore]) -> None:
    """Both are not archived yet."""
    for store in stores.values():
        store.delete(LAYOUT.wal_key(require_file_name(NAMES[2]), Codec.ZSTD, encrypted=False))
    ship(stores["r2"], written(100)[2], 0, MIB, number=2)
    ship(stores["r2"], written(5000)[3], 0, END)
    plan = plan_of(inventory(stores))
    assert [tail.segment.name for tail in plan.tails] == [NAMES[2]]
    assert plan.window.latest_lsn == Lsn(3 * MIB)


def test_a_damaged_piece_ends_the_plan_before_it(stores: dict[str, WatchedStore]) -> None:
    """The note names it; another store's good one is taken without a word."""
    keys = ship(stores["r2"], written(100)[3], 0, 100_000, 200_000, END)
    stores["r2"].path_of(keys[1]).write_bytes(b"damaged")
    found = inventory(stores)
    plan = plan_of(found)
    assert plan.window.latest_lsn == Lsn(3 * MIB + 100_000)
    assert any(note.startswith(f"r2: object '{keys[1]}' has 7 bytes, expected ") for note in plan.notes)
    ship(stores["b2"], written(100)[3], 0, 100_000, 200_000)
    again = plan_of(inventory(stores))
    assert again.window.latest_lsn == Lsn(3 * MIB + END)
    assert [note for note in again.notes if "left out" in note] == []


def test_a_piece_that_cannot_be_described_is_noted(stores: dict[str, WatchedStore]) -> None:
    """The plan ends before it."""
    keys = ship(stores["r2"], written(100)[3], 0, 100_000, END)
    stores["r2"].delete(keys[1])
    stores["r2"].add_bare(keys[1], b"x")
    found = inventory(stores)
    assert plan_of(found).window.latest_lsn == Lsn(3 * MIB + 100_000)
    said = f"r2: piece '{keys[1]}' has metadata that cannot be read: KeyError 'wal-format'"
    assert found.notes == (f"{said}: this piece is left out of the plan",)


def test_a_store_that_does_not_give_its_pieces_stops_the_plan(stores: dict[str, WatchedStore]) -> None:
    """It answered a moment ago: what it has is neither there nor absent."""
    ship(stores["r2"], written(100)[3], 0, END)
    found = inventory(stores)
    stores["b2"].down = True
    with pytest.raises(WalUnreachableError):
        plan_of(found)


def test_pieces_that_every_store_has_whole_are_not_asked_for(stores: dict[str, WatchedStore]) -> None:
    """They are left over, and cost no request."""
    ship(stores["r2"], written(100)[2], 0, 100_000, END, number=2)
    places = {name: ClusterStore(store, LAYOUT) for name, store in stores.items()}
    listings = {name: list_store(place) for name, place in places.items()}
    assert [len(items) for items in listings["r2"].pieces.values()] == [2]
    assert listings["r2"].others == ()
    stores["r2"].calls.clear()
    assert read_tails_of(listings, places) == ([], [])
    assert stores["r2"].calls == []


class MergingStore(WatchedStore):
    """Merges its pieces just before one of them is read for the first time."""

    merge: Callable[[], None] | None = None

    def open_described(self, key: str) -> AbstractContextManager[tuple[StoredObject, BinaryIO]]:
        """See ``Store``."""
        if self.merge is not None and key.startswith(LAYOUT.tail_root):
            act, self.merge = self.merge, None
            act()
        return super().open_described(key)


def test_pieces_that_are_merged_meanwhile_are_read_again(stores: dict[str, WatchedStore], tmp_path: Path) -> None:
    """The original ships on while the plan is made."""
    store = MergingStore("r2", tmp_path / "r2")
    data = written(100)[3]
    small = ship(store, data, 0, 100_000, 200_000, END)

    def merge() -> None:
        ship(store, data, 0, 200_000)
        for key in small[:2]:
            store.delete(key)

    store.merge = merge
    plan = plan_of(inventory({"r2": store, "b2": stores["b2"]}))
    assert store.merge is None
    assert plan.window.latest_lsn == Lsn(3 * MIB + END)
