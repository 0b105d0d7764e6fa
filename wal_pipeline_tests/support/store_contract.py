"""Defines the contract of ``Store`` as tests, which every store's test class inherits."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from wal_pipeline.errors import BucketMissingError, DamagedCopyError, ObjectMissingError, StoreError
from wal_pipeline.stores.base import Body, PutOutcome, Store

MIB = 1024 * 1024
BAD_KEYS = ("", "/", "/absolute", "a//b", "a/", "../x", "a/../b", "a/./b", ".", "a\\b", "a\nb", "a\x00b", "k" * 1025)


def body(data: bytes = b"some bytes") -> Body:
    """Return a body with its true digests."""
    return Body.of(data)


def read(store: Store, key: str, start: int = 0) -> bytes:
    """Return an object's bytes from ``start`` on."""
    with store.open(key, start=start) as stream:
        return stream.read()


def keys(store: Store, prefix: str, start_after: str = "") -> list[str]:
    """Return the keys of a listing."""
    return [found.key for found in store.list(prefix, start_after=start_after)]


class StoreContract:
    """The duties of every store. A subclass gives the fixtures ``store`` and ``bucketless_store``."""

    names = ("a", "a-b", "a.gz", "b/c", "b-", "b0", "b/a/z", "Z", "é", "z")

    @pytest.fixture
    def root(self) -> str:
        """A prefix that no other test uses."""
        return f"{secrets.token_hex(6)}/"

    def test_put_creates_an_object_with_its_bytes_and_metadata(self, store: Store, root: str) -> None:
        """An object is there, whole, as soon as its put has ended."""
        data = secrets.token_bytes(300_000)
        assert store.put_if_absent(root + "a", body(data), {"wal-name": "x"}) is PutOutcome.CREATED
        found = store.head(root + "a")
        assert found is not None
        assert (found.key, found.size_bytes, found.metadata) == (root + "a", 300_000, {"wal-name": "x"})
        assert found.modified_at.tzinfo is UTC
        assert abs(found.modified_at - datetime.now(UTC)) < timedelta(minutes=5)
        assert read(store, root + "a") == data

    @pytest.mark.parametrize("size_bytes", [0, 300_000, 17 * MIB])
    def test_a_copy_has_the_bytes_and_metadata_of_its_own(self, store: Store, root: str, size_bytes: int) -> None:
        """Also of an object that was uploaded in parts. What is there already is not written over."""
        data = secrets.token_bytes(size_bytes)
        store.put_if_absent(root + "a", body(data), {"wal-name": "x"})
        assert store.copy(root + "a", root + "b", {"wal-name": "y"}) is PutOutcome.CREATED
        found = store.head(root + "b")
        assert found is not None
        assert (found.size_bytes, found.metadata) == (size_bytes, {"wal-name": "y"})
        assert read(store, root + "b") == data
        store.put_if_absent(root + "c", body(b"other"), {})
        assert store.copy(root + "c", root + "b", {}) is PutOutcome.EXISTS
        assert read(store, root + "b") == data

    def test_a_copy_of_nothing_is_an_error(self, store: Store, root: str) -> None:
        """The error names the object, and no copy is made."""
        with pytest.raises(ObjectMissingError, match=f"object '{root}a' does not exist"):
            store.copy(root + "a", root + "b", {})
        assert keys(store, root) == []

    def test_etag_of_a_single_put_is_the_md5(self, store: Store, root: str) -> None:
        """The stored bytes' MD5 can be read without downloading them."""
        sent = body()
        store.put_if_absent(root + "a", sent, {})
        found = store.head(root + "a")
        assert found is not None
        assert found.etag == sent.md5.hex()

    def test_a_memoryview_is_stored_like_bytes(self, store: Store, root: str) -> None:
        """A slice of a larger buffer is sent without a copy."""
        store.put_if_absent(root + "a", Body.of(memoryview(b"0123456789")[2:5]), {})
        assert read(store, root + "a") == b"234"

    def test_an_empty_object_is_an_object(self, store: Store, root: str) -> None:
        """An object without bytes is not an absent object."""
        store.put_if_absent(root + "a", body(b""), {"k": "v"})
        found = store.head(root + "a")
        assert found is not None
        assert (found.size_bytes, found.metadata) == (0, {"k": "v"})
        assert read(store, root + "a") == b""

    def test_a_second_put_of_the_same_content_changes_nothing(self, store: Store, root: str) -> None:
        """Where the same name and content is there already, its metadata stay."""
        store.put_if_absent(root + "a", body(), {"put": "first"})
        assert store.put_if_absent(root + "a", body(), {"put": "second"}) is PutOutcome.EXISTS
        found = store.head(root + "a")
        assert found is not None
        assert found.metadata == {"put": "first"}
        assert len(list(store.versions(root))) == 1

    def test_a_put_of_other_content_never_overwrites(self, store: Store, root: str) -> None:
        """The caller learns that the name has other content, and the first content stays."""
        store.put_if_absent(root + "a", body(b"first"), {})
        assert store.put_if_absent(root + "a", body(b"other"), {}) is PutOutcome.EXISTS
        assert read(store, root + "a") == b"first"
        assert len(list(store.versions(root))) == 1

    def test_of_racing_puts_one_creates_and_its_bytes_stay(self, store: Store, root: str) -> None:
        """Six threads put six contents under one key at the same moment."""
        contents = [b"content %d" % number for number in range(6)]
        outcomes = race([lambda data=data: store.put_if_absent(root + "a", body(data), {}) for data in contents])
        assert sorted(outcomes) == [PutOutcome.CREATED] + [PutOutcome.EXISTS] * 5
        assert read(store, root + "a") == contents[outcomes.index(PutOutcome.CREATED)]
        assert len(list(store.versions(root))) == 1

    def test_a_wrong_md5_is_refused_and_leaves_nothing(self, store: Store, root: str) -> None:
        """Bytes that changed after they were hashed do not become an object."""
        with pytest.raises(DamagedCopyError):
            store.put_if_absent(root + "a", replace(body(), md5=b"\0" * 16), {})
        assert store.head(root + "a") is None
        assert list(store.versions(root)) == []

    def test_metadata_of_two_kibibytes_comes_back(self, store: Store, root: str) -> None:
        """Metadata keep every printable character, up to their full size."""
        printable = "".join(chr(code) for code in range(33, 127))
        metadata = {"wal-printable": printable, "wal-inner-spaces": "a b  c"}
        metadata["wal-rest"] = "x" * (2048 - sum(len(name) + len(value) for name, value in metadata.items()) - 8)
        store.put_if_absent(root + "a", body(), metadata)
        found = store.head(root + "a")
        assert found is not None
        assert found.metadata == metadata

    def test_metadata_that_not_every_store_keeps_is_refused(self, store: Store, root: str) -> None:
        """Nothing is put with metadata that would come back changed."""
        for metadata in ({"Upper": "x"}, {"a_b": "x"}, {"a": "ä"}, {"a": " x"}, {"a": "x\n"}, {"a": "x" * 2048}):
            with pytest.raises(StoreError):
                store.put_if_absent(root + "a", body(), metadata)
        assert store.head(root + "a") is None

    def test_head_of_an_absent_key_is_none(self, store: Store, root: str) -> None:
        """A longer key that begins with the absent one does not count."""
        store.put_if_absent(root + "abc", body(), {})
        assert store.head(root + "ab") is None

    def test_open_of_an_absent_key_is_an_error(self, store: Store, root: str) -> None:
        """The message names the object."""
        with pytest.raises(ObjectMissingError) as raised, store.open(root + "a"):
            pass
        assert raised.value.message == f"{store.name}: object '{root}a' does not exist"

    def test_open_described_tells_what_head_tells(self, store: Store, root: str) -> None:
        """The description and the bytes are of one object, an empty one too."""
        for name, data in (("a", secrets.token_bytes(70_000)), ("b", b"")):
            store.put_if_absent(root + name, body(data), {"wal-name": name})
            with store.open_described(root + name) as (described, stream):
                assert stream.read() == data
            assert described == store.head(root + name)

    def test_open_described_of_an_absent_key_is_an_error(self, store: Store, root: str) -> None:
        """The error is the one that ``open`` raises."""
        with pytest.raises(ObjectMissingError) as raised, store.open_described(root + "a"):
            pass
        assert raised.value.message == f"{store.name}: object '{root}a' does not exist"

    def test_open_reads_from_a_position(self, store: Store, root: str) -> None:
        """At and beyond the end there is nothing to read."""
        store.put_if_absent(root + "a", body(b"0123456789"), {})
        assert [read(store, root + "a", start) for start in (0, 4, 9, 10, 99)] == [
            b"0123456789",
            b"456789",
            b"9",
            b"",
            b"",
        ]

    def test_a_stream_is_read_in_pieces(self, store: Store, root: str) -> None:
        """Pieces of any size make up the object, and a stream may be closed before its end."""
        data = secrets.token_bytes(200_000)
        store.put_if_absent(root + "a", body(data), {})
        with store.open(root + "a") as stream:
            pieces = list(iter(lambda: stream.read(7_001), b""))
        assert b"".join(pieces) == data
        with store.open(root + "a") as stream:
            assert stream.read(10) == data[:10]

    @pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
    def test_bad_keys_are_refused_by_every_method(self, store: Store, key: str) -> None:
        """No key leads out of the store's own place."""
        calls: list[Callable[[], object]] = [
            lambda: store.put_if_absent(key, body(), {}),
            lambda: store.head(key),
            lambda: store.delete(key),
            lambda: store.open(key).__enter__(),
            lambda: store.begin_upload(key, {}),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="is not valid, expected"):
                call()

    def test_list_is_in_order_of_the_keys_bytes(self, store: Store, root: str) -> None:
        """Keys are sorted by bytes, with '/' (0x2f) among other characters, and beyond ASCII."""
        expected = sorted((root + name for name in self.names), key=str.encode)
        for name in self.names:
            store.put_if_absent(root + name, body(), {})
        assert keys(store, root) == expected
        assert keys(store, root + "b/") == [root + "b/a/z", root + "b/c"]
        assert keys(store, root + "a") == [root + "a", root + "a-b", root + "a.gz"]
        for position in range(len(expected)):
            assert keys(store, root, expected[position]) == expected[position + 1 :]

    def test_versions_are_in_order_and_begin_after_a_key(self, store: Store, root: str) -> None:
        """Ranges of a long listing can be read at the same time, also from a key that does not exist."""
        expected = sorted((root + name for name in self.names), key=str.encode)
        for name in self.names:
            store.put_if_absent(root + name, body(), {})
        assert [found.key for found in store.versions(root)] == expected
        for position, key in enumerate(expected):
            for start_after, rest in ((key, expected[position + 1 :]), (key + "\x7f", None)):
                found = [one.key for one in store.versions(root, start_after=start_after)]
                assert found == (rest if rest is not None else [one for one in expected if one > start_after])

    def test_list_of_nothing_is_empty(self, store: Store, root: str) -> None:
        """A prefix without objects is no error."""
        assert keys(store, root) == []

    def test_delete_removes_for_good(self, store: Store, root: str) -> None:
        """Nothing remains that would be billed, and the neighbours stay."""
        for name in ("a", "ab"):
            store.put_if_absent(root + name, body(), {})
        assert store.delete(root + "a") == 1
        assert store.head(root + "a") is None
        assert [version.key for version in store.versions(root)] == [root + "ab"]

    def test_delete_of_an_absent_key_removes_nothing(self, store: Store, root: str) -> None:
        """It is no error, so that a deletion that was cut can be run again."""
        assert store.delete(root + "a") == 0

    def test_a_deleted_key_can_be_put_again(self, store: Store, root: str) -> None:
        """A deletion leaves nothing behind that makes a put fail."""
        store.put_if_absent(root + "a", body(b"old"), {"k": "old"})
        store.delete(root + "a")
        assert store.put_if_absent(root + "a", body(b"new"), {}) is PutOutcome.CREATED
        found = store.head(root + "a")
        assert found is not None
        assert (read(store, root + "a"), found.metadata) == (b"new", {})

    def test_an_upload_in_parts_becomes_one_object(self, store: Store, root: str) -> None:
        """It is not visible before it is complete, and is not listed as unfinished afterwards."""
        data = secrets.token_bytes(5 * MIB + 1000)
        upload = store.begin_upload(root + "a", {"k": "v"})
        parts = tuple(
            store.upload_part(upload, number, body(piece))
            for number, piece in ((1, data[: 5 * MIB]), (2, data[5 * MIB :]))
        )
        assert store.head(root + "a") is None
        assert [(found.key, found.upload_id) for found in store.uploads(root)] == [(root + "a", upload.upload_id)]
        assert store.complete_upload(upload, parts) is PutOutcome.CREATED
        found = store.head(root + "a")
        assert found is not None
        assert (found.size_bytes, found.metadata) == (len(data), {"k": "v"})
        assert read(store, root + "a") == data
        assert list(store.uploads(root)) == []

    def test_an_upload_in_parts_never_overwrites(self, store: Store, root: str) -> None:
        """Where the object exists already, the upload and its parts are removed."""
        store.put_if_absent(root + "a", body(b"first"), {})
        upload = store.begin_upload(root + "a", {})
        part = store.upload_part(upload, 1, body(b"other"))
        assert store.complete_upload(upload, (part,)) is PutOutcome.EXISTS
        assert read(store, root + "a") == b"first"
        assert list(store.uploads(root)) == []
        assert len(list(store.versions(root))) == 1

    def test_a_part_with_a_wrong_md5_is_refused(self, store: Store, root: str) -> None:
        """A part is refused like a whole object."""
        upload = store.begin_upload(root + "a", {})
        with pytest.raises(DamagedCopyError):
            store.upload_part(upload, 1, replace(body(), md5=b"\0" * 16))
        store.abort_upload(upload)

    def test_leftover_uploads_are_listed_and_aborted(self, store: Store, root: str) -> None:
        """Every leftover upload is listed, and aborting it twice is no error."""
        begun = [store.begin_upload(root + name, {}) for name in ("b", "a", "c")]
        store.upload_part(begun[0], 1, body())
        leftovers = list(store.uploads(root))
        assert sorted(upload.key for upload in leftovers) == [root + "a", root + "b", root + "c"]
        assert all(upload.begun_at.tzinfo is UTC for upload in leftovers)
        for upload in [*leftovers, *leftovers]:
            store.abort_upload(upload)
        assert list(store.uploads(root)) == []

    def test_check_access_returns_where_the_store_answers(self, store: Store) -> None:
        """The check leaves nothing behind."""
        store.check_access()

    def test_a_missing_bucket_is_never_taken_for_an_absent_object(self, bucketless_store: Store) -> None:
        """Every method says that the bucket is missing: a misspelt bucket must not end a recovery early."""
        calls: list[Callable[[], object]] = [
            bucketless_store.check_access,
            lambda: bucketless_store.head("a"),
            lambda: bucketless_store.open("a").__enter__(),
            lambda: bucketless_store.open_described("a").__enter__(),
            lambda: list(bucketless_store.list("")),
            lambda: list(bucketless_store.versions("")),
            lambda: bucketless_store.delete("a"),
            lambda: bucketless_store.put_if_absent("a", body(), {}),
            lambda: bucketless_store.begin_upload("a", {}),
        ]
        for call in calls:
            with pytest.raises(BucketMissingError):
                call()


def race(calls: list[Callable[[], PutOutcome]]) -> list[PutOutcome]:
    """Run all calls at the same moment, each in its thread, and return their results in order."""
    gate = threading.Barrier(len(calls))
    results: dict[int, PutOutcome] = {}

    def run(number: int) -> None:
        gate.wait(30)
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [results[number] for number in range(len(calls))]
