"""A segment that later ones overtook on their way to the store is looked for again, and never called a gap."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.inventory.listing import list_store
from wal_pipeline.commands.inventory.overtaken import look_again
from wal_pipeline.stores.base import Body, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import segment_name
from wal_pipeline_tests.support.restore_archive import LAYOUT, SEGMENT_SIZE, WatchedStore

NAMES = [segment_name(1, number, SEGMENT_SIZE) for number in range(1, 7)]
KEYS = [LAYOUT.wal_key(name, Codec.ZSTD, encrypted=False) for name in NAMES]


class ArrivingStore(WatchedStore):
    """A store to which the third segment comes just before it is looked for."""

    is_arriving = False

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[StoredObject]:
        """See ``Store``."""
        if self.is_arriving and prefix.endswith(NAMES[2].name):
            self.put_if_absent(KEYS[2], Body.of(b"x"), {})
        return super().list(prefix, start_after=start_after)


@pytest.fixture
def store(tmp_path: Path) -> ArrivingStore:
    """All segments except the third."""
    made = ArrivingStore("r2", tmp_path / "r2")
    for key in (*KEYS[:2], *KEYS[3:]):
        made.put_if_absent(key, Body.of(b"x"), {})
    return made


def test_a_segment_that_comes_meanwhile_is_no_gap(store: ArrivingStore) -> None:
    """The second look finds it."""
    place = ClusterStore(store, LAYOUT)
    listed = list_store(place)
    store.is_arriving = True
    found, arriving = look_again({"r2": listed}, {"r2": place}, SEGMENT_SIZE)
    assert set(found["r2"].wal) == {name.name for name in NAMES}
    assert arriving == frozenset()


def test_a_segment_that_does_not_come_may_be_on_its_way(store: ArrivingStore) -> None:
    """The next one was stored a moment ago."""
    place = ClusterStore(store, LAYOUT)
    assert look_again({"r2": list_store(place)}, {"r2": place}, SEGMENT_SIZE)[1] == {NAMES[2].name}


def test_an_old_gap_is_a_gap_and_costs_no_second_look(store: ArrivingStore) -> None:
    """What follows it was stored an hour ago."""
    for path in store.folder.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - 3600, path.stat().st_mtime - 3600))
    place = ClusterStore(store, LAYOUT)
    listed = list_store(place)
    store.calls.clear()
    assert look_again({"r2": listed}, {"r2": place}, SEGMENT_SIZE) == ({"r2": listed}, frozenset())
    assert store.calls == []
