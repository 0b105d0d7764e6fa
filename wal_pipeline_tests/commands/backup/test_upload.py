"""One object to several stores at once: equal parts, bounded memory, and stores that are slow, stuck or failing."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from wal_pipeline.commands.backup.part_uploader import UploadLimits
from wal_pipeline.commands.backup.upload import BackupUpload
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.errors import BaseBackupError, StoreUnavailableError
from wal_pipeline.stores.base import Body, MultipartUpload, UploadedPart
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.base_backup_scene import MIB, folder_store, read

LIMITS = UploadLimits(part_size_bytes=5 * MIB, parts_in_memory=3, tries=3, retry_seconds=0.01)
DATA = bytes(range(256)) * (12 * MIB // 256)


class TroubledStore(LocalFolderStore):
    """A local folder whose parts are stored only after ``before_part`` returned."""

    before_part: Callable[[int], object]

    def __init__(self, name: str, folder: Path) -> None:
        (folder / name).mkdir()
        super().__init__(name, folder / name)
        self.prepare()
        self.sizes: list[int] = []

    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> UploadedPart:
        """Do what the test wants, then store the part."""
        self.before_part(number)
        self.sizes.append(body.size_bytes)
        return super().upload_part(upload, number, body)


@pytest.fixture
def good(tmp_path: Path) -> LocalFolderStore:
    """A store that works."""
    return folder_store("good", tmp_path)


@pytest.fixture
def troubled(tmp_path: Path) -> TroubledStore:
    """A store that works until a test says otherwise."""
    store = TroubledStore("troubled", tmp_path)
    store.before_part = lambda _: None
    return store


def in_pieces(data: bytes, size: int = 700_001) -> Callable[[Callable[[bytes], None]], None]:
    """Return a function that writes ``data`` in odd pieces."""
    return lambda sink: [sink(data[start : start + size]) for start in range(0, len(data), size)] and None


def store_one(upload: BackupUpload, key: str = "a/object", data: bytes = DATA) -> StoredBytes:
    """Store one object."""
    metadata: Mapping[str, str] = {"base-format": "1"}
    return upload.store_object(key, metadata, in_pieces(data))


def test_parts_are_equal_and_the_object_is_whole(troubled: TroubledStore) -> None:
    """All parts but the last have the same size, as R2 wants it."""
    with BackupUpload([troubled], LIMITS) as upload:
        store_one(upload)
        upload.wait()
    assert sorted(troubled.sizes, reverse=True) == [5 * MIB, 5 * MIB, 2 * MIB]
    assert read(troubled, "a/object") == DATA


@pytest.mark.parametrize("size", [1, 5 * MIB, 5 * MIB + 1, 10 * MIB])
def test_objects_at_the_edges_of_a_part_are_whole(good: LocalFolderStore, size: int) -> None:
    """One part is a plain put; one byte more is two parts; no part is empty."""
    with BackupUpload([good], LIMITS) as upload:
        store_one(upload, data=DATA[:size])
        upload.wait()
    assert read(good, "a/object") == DATA[:size]


def test_a_passing_failure_is_tried_again(troubled: TroubledStore) -> None:
    """Two failures of one part are cured by the third try."""
    left = [1, 1]

    def fail_twice(_: int) -> None:
        if left:
            left.pop()
            raise StoreUnavailableError("troubled", "not now")

    troubled.before_part = fail_twice
    with BackupUpload([troubled], LIMITS) as upload:
        store_one(upload)
        upload.wait()
        assert upload.failures == {}
    assert read(troubled, "a/object") == DATA


def test_a_failing_store_is_dropped_and_its_upload_aborted(good: LocalFolderStore, troubled: TroubledStore) -> None:
    """The good store gets its copy; the other has neither object nor parts."""

    def fail(number: int) -> None:
        if number == 2:
            raise StoreUnavailableError("troubled", "gone for good")

    troubled.before_part = fail
    with BackupUpload([good, troubled], LIMITS) as upload:
        store_one(upload)
        store_one(upload, "a/second")
        upload.wait()
        assert [str(error) for error in upload.failures.values()] == ["troubled: gone for good"]
    assert [item.key for item in good.list("")] == ["a/object", "a/second"]
    assert list(troubled.list("")) == []
    assert list(troubled.uploads("")) == []


def test_a_slow_store_sets_the_pace(good: LocalFolderStore, troubled: TroubledStore) -> None:
    """While one store has not sent its parts, no more are read than the buffers hold; then the upload continues."""
    gate = threading.Event()
    troubled.before_part = lambda _: gate.wait(30)
    taken = 0

    def write(sink: Callable[[bytes], None]) -> None:
        nonlocal taken
        for start in range(0, len(DATA) * 3, MIB):
            sink(DATA[start % len(DATA) :][:MIB])
            taken += MIB

    with BackupUpload([good, troubled], LIMITS) as upload:
        thread = threading.Thread(target=lambda: upload.store_object("a/object", {}, write))
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        assert taken <= 3 * LIMITS.part_size_bytes
        gate.set()
        thread.join(30)
        upload.wait()
        assert upload.failures == {}
    assert read(troubled, "a/object") == DATA * 3


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends what hangs when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_stuck_store_is_dropped_after_a_while(
    good: LocalFolderStore, troubled: TroubledStore, release: threading.Event
) -> None:
    """A call that never returns holds the other store back for ``stall_seconds`` and no longer."""
    troubled.before_part = lambda _: release.wait(60)
    limits = UploadLimits(part_size_bytes=5 * MIB, parts_in_memory=2, stall_seconds=0.3)
    with BackupUpload([good, troubled], limits) as upload:
        store_one(upload, data=DATA * 3)
        upload.wait()
        assert str(upload.failures["troubled"]).startswith("troubled: stored no part for ")
    assert read(good, "a/object") == DATA * 3


def test_where_no_store_is_left_the_next_call_raises(troubled: TroubledStore) -> None:
    """Reading the database on would be for nothing."""

    def fail(_: int) -> None:
        raise StoreUnavailableError("troubled", "gone")

    troubled.before_part = fail
    with BackupUpload([troubled], LIMITS) as upload, pytest.raises(BaseBackupError) as caught:
        for number in range(100):
            store_one(upload, f"a/{number}")
    assert caught.value.message == "no store took the base backup: troubled: gone"


def test_an_object_that_is_there_with_other_bytes_is_a_failure(good: LocalFolderStore) -> None:
    """An object is never overwritten, and never taken for ours."""
    good.put_if_absent("a/object", Body.of(b"another"), {})
    with BackupUpload([good], LIMITS, read_back=False) as upload:
        store_one(upload)
        with pytest.raises(BaseBackupError, match="good: object 'a/object' has 7 bytes, expected"):
            upload.wait()
    assert read(good, "a/object") == b"another"


def test_bytes_that_are_not_the_expected_ones_make_no_object(good: LocalFolderStore) -> None:
    """A refill compares the size and the SHA-256 before a copy is made."""
    size, sha256 = len(DATA), StoredBytes.of(DATA).sha256
    for expected, message in (
        (StoredBytes(3, sha256), f"object 'a/object' has {size} bytes, expected 3"),
        (StoredBytes(size, "abc"), f"object 'a/object' has SHA-256 {sha256}, expected abc"),
    ):
        with BackupUpload([good], LIMITS) as upload, pytest.raises(BaseBackupError) as raised:
            upload.store_object("a/object", {}, in_pieces(DATA), expected)
        assert raised.value.message == message
    assert list(good.list("")) == []
    assert list(good.uploads("")) == []


def test_many_workers_have_parts_and_uploads_for_each() -> None:
    """Sixteen workers do not wait for each other's parts; a few have what others have."""
    assert UploadLimits().for_workers(2) == UploadLimits()
    many = UploadLimits().for_workers(16)
    assert (many.parts_in_memory, many.uploads_per_store) == (32, 16)
    assert UploadLimits().for_workers(64).uploads_per_store == 16
