"""One copy on one store: put, proved, adopted, mended or refused."""

from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.copies.put import adopt_copy, store_copy
from wal_pipeline.errors import CopyConflictError, ObjectMissingError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.archive_scene import WatchedStore, contents, folder_store, layout
from wal_pipeline_tests.support.restore_archive import describe_file
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of, segment_bytes

DATA = segment_bytes(1)
FILE = describe_file(name_of(1), DATA, SYSTEM_IDENTIFIER)
OTHER = segment_bytes(1, variant=1)
OTHER_FILE = describe_file(name_of(1), OTHER, SYSTEM_IDENTIFIER)
STEM = f"main/{SYSTEM_IDENTIFIER}/wal/00000001/0000000100000000/{name_of(1)}"


@pytest.fixture
def store(quick_folder: Path) -> WatchedStore:
    return WatchedStore(folder_store("r2", quick_folder / "r2"))


def put(store: WatchedStore, codec: Codec = Codec.ZSTD, found: str | None = None, *, other: bool = False) -> str:
    file, data = (OTHER_FILE, OTHER) if other else (FILE, DATA)
    key, _ = store_copy(ClusterStore(store, layout()), file, Encoder(codec).encode(data), read_back=True, found=found)
    return key


def damage(store: WatchedStore, folder: Path, key: str) -> None:
    path = folder / "r2" / "objects" / key
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("codec", "suffix"), [(Codec.GZIP, ".gz"), (Codec.ZSTD, ".zst"), (Codec.LZ4, ".lz4"), (Codec.NONE, "")]
)
def test_a_copy_is_put_and_read_back(store: WatchedStore, codec: Codec, suffix: str) -> None:
    """The object has the key of its encoding, opens to the file, and was read once to prove it."""
    assert put(store, codec) == STEM + suffix
    assert [call for call, _ in store.calls] == ["put", "open"]
    assert contents(store) == {FILE.name: DATA}


def test_the_same_copy_is_adopted(store: WatchedStore) -> None:
    """A second put finds the first one, compares its content, proves its bytes, and changes nothing."""
    key = put(store)
    store.calls.clear()
    assert put(store) == key
    assert [call for call, _ in store.calls] == ["put", "head", "open"]
    assert store.created == [key]


def test_a_copy_in_another_encoding_is_adopted(store: WatchedStore) -> None:
    """Where the store was seen to hold the file in another encoding, no second object is made."""
    key = put(store, Codec.ZSTD)
    assert put(store, Codec.NONE, found=key) == key
    assert store.created == [key]


@pytest.mark.parametrize("seen", [True, False])
def test_other_content_is_refused(store: WatchedStore, seen: bool) -> None:
    """The copy that is there stays; the error names both contents."""
    key = put(store)
    with pytest.raises(CopyConflictError) as raised:
        put(store, other=True, found=key if seen else None)
    assert raised.value.message == (
        f"r2: object '{key}' has content with SHA-256 {FILE.sha256}, the spool's file has {OTHER_FILE.sha256}"
    )
    assert contents(store) == {FILE.name: DATA}


def test_an_object_that_is_not_ours_is_refused(store: WatchedStore) -> None:
    """An object without our metadata is never taken for a copy, and never replaced."""
    store.put_if_absent(f"{STEM}.zst", Body.of(b"somebody's"), {})
    with pytest.raises(CopyConflictError, match="has metadata that cannot be read"):
        put(store)
    with store.open(f"{STEM}.zst") as stream:
        assert stream.read() == b"somebody's"


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.GZIP])
def test_a_damaged_copy_is_mended(store: WatchedStore, quick_folder: Path, codec: Codec) -> None:
    """Stored bytes that are not those promised give way to the good ones at hand, in this encoding or another."""
    key = put(store)
    damage(store, quick_folder, key)
    assert put(store, codec, found=key) == STEM + codec.suffix
    assert contents(store) == {FILE.name: DATA}


def test_a_damaged_copy_of_other_content_is_not_mended(store: WatchedStore, quick_folder: Path) -> None:
    """What may be the last trace of another file is not removed for this one."""
    key = put(store)
    damage(store, quick_folder, key)
    with pytest.raises(CopyConflictError):
        put(store, other=True)
    assert store.head(key) is not None


def test_a_copy_that_went_since_it_was_seen_is_stored(store: WatchedStore) -> None:
    """A listing may be old: where the object is gone, the file is stored."""
    assert put(store, found=f"{STEM}.gz") == f"{STEM}.zst"
    assert contents(store) == {FILE.name: DATA}


def test_a_copy_that_is_not_there_is_not_adopted(store: WatchedStore) -> None:
    """It is looked for twice, and then named as missing."""
    with pytest.raises(ObjectMissingError) as raised:
        adopt_copy(store, f"{STEM}.gz", FILE, read_back=True)
    assert raised.value.message == f"r2: object '{STEM}.gz' does not exist"
    assert [call for call, _ in store.calls] == ["head", "head"]
