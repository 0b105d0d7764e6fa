"""Timeline history files are read from any store that has a good copy; a bad one is named."""

from pathlib import Path

import pytest

from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.inventory.histories import read_histories
from wal_pipeline.commands.inventory.listing import list_store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.timeline import TimelineHistory
from wal_pipeline_tests.support.restore_archive import LAYOUT, WatchedStore

SECOND, THIRD = "00000002.history", "00000003.history"
LINES = {
    SECOND: b"1\t0/3000158\tno recovery target specified\n",
    THIRD: b"1\t0/3000158\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-11-22\n",
}


@pytest.fixture
def stores(tmp_path: Path) -> list[WatchedStore]:
    """Two stores; each has one of two history files, and a segment."""
    made = [WatchedStore(name, tmp_path / name) for name in ("r2", "b2")]
    for store, name in zip(made, LINES, strict=True):
        store.add(name, LINES[name])
        store.add("000000010000000000000003")
    return made


def read(stores: list[WatchedStore]) -> tuple[dict[int, TimelineHistory], tuple[str, ...]]:
    return read_histories(
        [list_store(ClusterStore(store, LAYOUT)) for store in stores], WalSource(LAYOUT, tuple(stores))
    )


def test_each_history_file_is_read_from_the_store_that_has_it(stores: list[WatchedStore]) -> None:
    """By timeline, over all stores; segments are not asked for."""
    expected = {number: TimelineHistory.parse(number, LINES[f"{number:08X}.history"]) for number in (2, 3)}
    assert read(stores) == (expected, ())


def test_a_history_file_that_cannot_be_read_is_named(stores: list[WatchedStore]) -> None:
    """The other one is read all the same."""
    stores[1].add("00000004.history", b"no history\n")
    found, notes = read(stores)
    assert found.keys() == {2, 3}
    [note] = notes
    assert "00000004" in note
