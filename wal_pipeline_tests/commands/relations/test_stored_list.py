"""A list is stored with proven bytes, opened only as what its key says, and copied as it is."""

from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from wal_pipeline.archive.format.keys import moment_name
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.relations.stored_list import check_list, copy_list, find_lists, open_list
from wal_pipeline.errors import CodecError, DamagedCopyError, RelationListError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.archive_scene import folder_store, layout
from wal_pipeline_tests.support.kept_lists import list_at, put
from wal_pipeline_tests.support.relation_lists import FIRST_AT


@pytest.fixture
def place(tmp_path: Path) -> ClusterStore:
    return ClusterStore(folder_store("r2", tmp_path / "r2"), layout())


@pytest.mark.parametrize("codec", Codec)
def test_it_comes_back_as_it_was_put(place: ClusterStore, codec: Codec) -> None:
    """With any codec; no name of a table stands in the key or in the metadata."""
    listed = list_at(place, FIRST_AT)
    key = put(place, listed, Encoder(codec))
    assert key == f"{place.layout.relations_root}20261101T030000Z.json{codec.suffix}"
    [found] = find_lists(place)
    assert (found.key, found.taken_at) == (key, FIRST_AT)
    assert open_list(place, found) == listed
    described = place.store.head(key)
    assert described is not None and "orders" not in str(described.metadata)
    assert check_list(place, found, (), deep=True) == found.size_bytes


def test_an_encrypted_list_needs_an_identity(place: ClusterStore) -> None:
    """Names are encrypted where WAL is. Its stored bytes are compared without one."""
    identity = pyrage.x25519.Identity.generate()
    listed = list_at(place, FIRST_AT)
    key = put(place, listed, Encoder(Codec.ZSTD, recipients=[str(identity.to_public())]))
    assert key.endswith(".json.zst.age")
    [found] = find_lists(place)
    assert open_list(place, found, [identity]) == listed
    assert check_list(place, found, (), deep=True) == found.size_bytes
    with pytest.raises(CodecError):
        open_list(place, found)


def test_a_second_list_of_the_same_second_changes_nothing(place: ClusterStore) -> None:
    """Two processes may keep one at once: each is a list of that second."""
    first = list_at(place, FIRST_AT)
    put(place, first)
    put(place, replace(first, timeline=2))
    [found] = find_lists(place)
    assert open_list(place, found) == first


def test_damaged_bytes_are_found_and_stored_again(place: ClusterStore) -> None:
    """The good bytes are at hand where a list is put."""
    listed = list_at(place, FIRST_AT)
    key = put(place, listed)
    described = place.store.head(key)
    assert described is not None
    place.store.delete(key)
    place.store.put_if_absent(key, Body.of(b"x" * described.size_bytes), described.metadata)
    [found] = find_lists(place)
    with pytest.raises(DamagedCopyError, match="has SHA-256"):
        open_list(place, found)
    put(place, listed)
    assert open_list(place, found) == listed


def test_a_list_under_another_key_is_refused(place: ClusterStore) -> None:
    """A list that somebody moved would give tables the names of another day, or of another cluster."""
    key = put(place, list_at(place, FIRST_AT))
    described = place.store.head(key)
    assert described is not None
    with place.store.open(key) as stream:
        data = stream.read()
    moved = place.layout.relations_key("20261102T030000Z", Codec.ZSTD, encrypted=False)
    place.store.put_if_absent(moved, Body.of(data), described.metadata)
    other = ClusterStore(place.store, layout(77))
    strange = other.layout.relations_key(moment_name(FIRST_AT), Codec.ZSTD, encrypted=False)
    place.store.put_if_absent(strange, Body.of(data), described.metadata)
    for where, found in ((place, find_lists(place)[1]), (other, find_lists(other)[0])):
        with pytest.raises(DamagedCopyError, match="says that it is the list of 20261101T030000Z of system"):
            open_list(where, found)


def test_a_copy_has_the_same_bytes(place: ClusterStore, tmp_path: Path) -> None:
    """So that one digest holds on all stores, encrypted or not."""
    key = put(place, list_at(place, FIRST_AT))
    other = ClusterStore(folder_store("b2", tmp_path / "b2"), place.layout)
    [found] = find_lists(place)
    copy_list(place, found, other)
    [copied] = find_lists(other)
    assert (copied.key, copied.size_bytes) == (key, found.size_bytes)
    assert open_list(other, copied) == open_list(place, found)


def test_a_list_whose_metadata_were_lost_opens_all_the_same(place: ClusterStore, tmp_path: Path) -> None:
    """As a copy of a file does, after another tool moved the bucket. It is not taken for a repair."""
    listed = list_at(place, FIRST_AT)
    key = put(place, listed)
    with place.store.open(key) as stream:
        data = stream.read()
    place.store.delete(key)
    place.store.put_if_absent(key, Body.of(data), {})
    [found] = find_lists(place)
    assert open_list(place, found) == listed
    assert check_list(place, found, (), deep=True) == len(data)
    assert check_list(place, found, (), deep=False) == 0
    with pytest.raises(RelationListError, match="has no metadata, so nobody can prove it"):
        copy_list(place, found, ClusterStore(folder_store("b2", tmp_path / "b2"), place.layout))
