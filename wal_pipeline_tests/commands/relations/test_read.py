"""Lists are read from whichever store has them whole, and what could not be read is named."""

from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.commands.relations.read import list_relation_lists, read_relation_lists
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.archive_scene import WatchedStore, fail, folder_store, layout
from wal_pipeline_tests.support.kept_lists import list_at, put
from wal_pipeline_tests.support.relation_lists import FIRST_AT

DAY = timedelta(days=1)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, ClusterStore]:
    """Two stores, with lists of four days; the first has all but that of the second day."""
    stores = [WatchedStore(folder_store(name, tmp_path / name)) for name in ("r2", "b2")]
    made = {store.name: ClusterStore(store, layout()) for store in stores}
    for number in range(4):
        for place in made.values():
            if (place.name, number) != ("r2", 1):
                put(place, list_at(place, FIRST_AT + number * DAY))
    return made


def days(found: list) -> list[int]:  # type: ignore[type-arg]
    return [(one.taken_at - FIRST_AT).days for one in found]


def test_each_list_comes_from_a_store_that_has_it(places: dict[str, ClusterStore]) -> None:
    """The oldest first; a relation that did not change is one object in all of them."""
    found, notes = read_relation_lists(places)
    assert (days(found), notes) == ([0, 1, 2, 3], [])
    assert found[0].relations[0] is found[3].relations[0]
    copies, silent = list_relation_lists(places)
    assert [[copy.store for copy in one] for one in copies.values()] == [
        ["r2", "b2"],
        ["b2"],
        ["r2", "b2"],
        ["r2", "b2"],
    ]
    assert silent == {}


def test_only_those_since_a_moment_and_the_one_before_are_read(places: dict[str, ClusterStore]) -> None:
    """The one before was in force at that moment."""
    assert days(read_relation_lists(places, since=FIRST_AT + 1.5 * DAY)[0]) == [1, 2, 3]
    assert days(read_relation_lists(places, since=FIRST_AT + 2 * DAY)[0]) == [2, 3]
    assert days(read_relation_lists(places, since=FIRST_AT - DAY)[0]) == [0, 1, 2, 3]


def test_a_damaged_copy_is_passed_over(places: dict[str, ClusterStore]) -> None:
    """Another store's is taken; where none is whole, an older one stands for it and the reason is told."""
    for number, stores in ((3, ["r2"]), (1, ["b2"])):
        for name in stores:
            place = places[name]
            [copy] = [
                one for one in list_relation_lists({name: place})[0].values() if one[0].taken_at.day == number + 1
            ]
            head = place.store.head(copy[0].key)
            assert head is not None
            place.store.delete(copy[0].key)
            place.store.put_if_absent(copy[0].key, Body.of(b"?"), head.metadata)
    found, notes = read_relation_lists(places, since=FIRST_AT + 1.5 * DAY)
    assert days(found) == [0, 2, 3]
    assert len(notes) == 1
    assert notes[0].startswith("the list of relations of 20261102T030000Z cannot be read: b2: object '")


def test_a_store_that_is_down_is_named(places: dict[str, ClusterStore]) -> None:
    """The other one's lists count."""
    store = places["r2"].store
    assert isinstance(store, WatchedStore)
    store.before = fail("r2")
    found, notes = read_relation_lists(places)
    assert days(found) == [0, 1, 2, 3]
    assert (
        len(notes) == 1 and notes[0].startswith("r2: ") and notes[0].endswith(": its lists of relations are left out")
    )
