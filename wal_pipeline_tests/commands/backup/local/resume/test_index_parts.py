"""The parts of the index are stored often enough, and never stop a base backup."""

from pathlib import Path

import pytest

from wal_pipeline.archive.format.base_backup.file_index import FilePart
from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.format.base_backup.unfinished import BegunFile
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.packed import PackedVolumes
from wal_pipeline.commands.backup.local.resume.find import find_unfinished
from wal_pipeline.commands.backup.local.resume.index_parts import IndexParts
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.archive_scene import WatchedStore, folder_store
from wal_pipeline_tests.support.manifests import LAYOUT

BACKUP_ID = "20261122T174500Z-000000010000000000000002"
ENCODER = StreamEncoder(Codec.ZSTD)


class Clock:
    """Seconds that a test lets pass."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    """An empty store."""
    return WatchedStore(folder_store("r2", tmp_path / "r2"))


def _names(store: WatchedStore) -> list[str]:
    return [item.key.rpartition("/")[2] for item in store.list(LAYOUT.base_root)]


def _pack(packed: PackedVolumes, count: int) -> None:
    """Hand over volumes, each with a part of one large file."""
    for _ in range(count):
        number = packed.begin()
        packed.add_volume(number, BACKUP_ID, BackupObject(f"files.{number:06d}.tar.zst", 4, "ab" * 32, 9728))
        part = FilePart(number, number * 8192, 8192, "0000000a")
        packed.add_parts(BegunFile("base/5/1", 1 << 30, 7, 0o600, (part,)))


def test_a_part_is_stored_after_some_volumes_or_some_time(store: WatchedStore) -> None:
    """Four volumes, later a twentieth of all; one volume where the last part is a minute ago."""
    clock, packed = Clock(), PackedVolumes()
    parts = IndexParts(BACKUP_ID, Lsn(7), [ClusterStore(store, LAYOUT)], ENCODER, clock)
    told = []
    for count, seconds in [(3, 0), (1, 0), (1, 59), (0, 1), (0, 90), (1, 0), (196, 0), (9, 0), (2, 0), (1, 59), (1, 1)]:
        _pack(packed, count)
        clock.seconds += seconds
        parts.store_news(packed)
        told.append(len(_names(store)))
    assert told == [0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6]
    parts.remove()
    assert _names(store) == []


def test_the_rest_is_told_before_the_wait_for_the_stores(store: WatchedStore) -> None:
    """But not of a base backup that is so small that it begins again at once."""
    packed = PackedVolumes()
    parts = IndexParts(BACKUP_ID, Lsn(7), [ClusterStore(store, LAYOUT)], ENCODER, Clock())
    _pack(packed, 3)
    parts.store_news(packed, is_last=True)
    assert not parts.is_begun
    _pack(packed, 1)
    parts.store_news(packed)
    _pack(packed, 1)
    parts.store_news(packed, is_last=True)
    assert _names(store) == ["file_index.part.000000.zst", "file_index.part.000001.zst"]


def test_each_part_of_a_large_file_is_told_once(store: WatchedStore) -> None:
    """Together they are all that was stored of it; of a volume that is not on the store nothing is believed."""
    packed, place = PackedVolumes(), ClusterStore(store, LAYOUT)
    parts = IndexParts(BACKUP_ID, Lsn(7), [place], ENCODER, Clock())
    for _ in range(3):
        _pack(packed, 4)
        parts.store_news(packed)
    for number in (0, 1, 5, 11):
        key = LAYOUT.base_key(BACKUP_ID, f"files.{number:06d}.tar.zst")
        store.put_if_absent(key, Body.of(b"1234" if number != 1 else b"123"), {})
    [found] = find_unfinished([place], ENCODER, [])
    assert [part.volume for part in found.large["base/5/1"].parts] == [0, 5, 11]
    assert (found.backup_id, found.start_lsn, found.files) == (BACKUP_ID, Lsn(7), {})


def test_a_store_that_does_not_take_it_is_no_reason_to_stop(store: WatchedStore, tmp_path: Path) -> None:
    """The other one has it."""
    other, packed = folder_store("b2", tmp_path / "b2"), PackedVolumes()

    def refuse(call: str, _key: str) -> None:
        if call == "put":
            raise StoreUnavailableError("r2", "the disk is full")

    store.before = refuse
    parts = IndexParts(BACKUP_ID, Lsn(7), [ClusterStore(one, LAYOUT) for one in (store, other)], ENCODER, Clock())
    _pack(packed, 4)
    parts.store_news(packed)
    assert len(list(other.list(LAYOUT.base_root))) == 1
