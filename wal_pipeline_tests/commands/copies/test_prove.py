"""Stored bytes count as damaged only when a second look finds the same; one wording says what is wrong."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.copies.prove import head_proved, prove, prove_described, read_proved
from wal_pipeline.commands.copies.read import read_source
from wal_pipeline.commands.copies.stored_bytes import (
    StoredBytes,
    WrongSizeError,
)
from wal_pipeline.commands.verify.read_copy import CopyReader
from wal_pipeline.errors import DamagedCopyError, ObjectMissingError, StoreError, StoreUnavailableError
from wal_pipeline.stores.base import Body, Store, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.archive_scene import WatchedStore, folder_store
from wal_pipeline_tests.support.restore_archive import LAYOUT
from wal_pipeline_tests.support.restore_archive import WatchedStore as WalStore
from wal_pipeline_tests.support.segments import segment_bytes

KEY = "a/object"
DATA = segment_bytes(1)
EXPECTED = StoredBytes.of(DATA)
NAME = "000000010000000000000003"
FLIPPED = DATA[:-1] + bytes([DATA[-1] ^ 1])
OTHER = f"r2: object '{KEY}' has SHA-256 {StoredBytes.of(FLIPPED).sha256}, expected {EXPECTED.sha256}"
SHORT = f"r2: object '{KEY}' has {len(DATA) - 1} bytes, expected {len(DATA)}"
MISSING = f"r2: object '{KEY}' does not exist"

Proof = Callable[[Store], object]
BY_READING: list[Proof] = [lambda store: prove(store, KEY, EXPECTED), lambda store: read_proved(store, KEY, EXPECTED)]
BY_ASKING: list[Proof] = [
    lambda store: prove(store, KEY, EXPECTED, read_back=False),
    lambda store: head_proved(store, KEY),
]


class Unsteady(WatchedStore):
    """A store of which the first ``bad_looks`` reads have a changed bit, and as many heads find nothing."""

    bad_looks = 0

    @contextmanager
    def open(self, key: str, *, start: int = 0) -> Iterator[BinaryIO]:
        """See ``Store``."""
        with super().open(key, start=start) as stream:
            data = stream.read()
        self.bad_looks -= 1
        yield io.BytesIO(data if self.bad_looks < 0 else data[:-1] + bytes([data[-1] ^ 1]))

    def head(self, key: str) -> StoredObject | None:
        """See ``Store``."""
        found = super().head(key)
        self.bad_looks -= 1
        return found if self.bad_looks < 0 else None


@pytest.fixture
def store(quick_folder: Path) -> Unsteady:
    """A store with nothing in it."""
    return Unsteady(folder_store("r2", quick_folder / "r2"))


def put(store: Unsteady, data: bytes = DATA) -> None:
    store.inner.put_if_absent(KEY, Body.of(data), {})


def refused(store: Unsteady, proof: Proof) -> tuple[type[StoreError], str, list[str]]:
    """Return the error's class and message, and what the store was asked."""
    with pytest.raises(StoreError) as raised:
        proof(store)
    return raised.type, raised.value.message, [call for call, _ in store.calls]


@pytest.mark.parametrize(("proofs", "call"), [(BY_READING, "open"), (BY_ASKING, "head")])
def test_what_is_right_is_looked_at_once(store: Unsteady, proofs: list[Proof], call: str) -> None:
    """One request, and none of another kind."""
    put(store)
    for proof in proofs:
        store.calls.clear()
        proof(store)
        assert store.calls == [(call, KEY)]
    assert read_proved(store, KEY, EXPECTED) == DATA


@pytest.mark.parametrize(("proofs", "call"), [(BY_READING, "open"), (BY_ASKING, "head")])
def test_one_bad_look_costs_no_good_copy(store: Unsteady, proofs: list[Proof], call: str) -> None:
    """Bytes that changed on the way once, or an object that was not seen once, are right at the second look."""
    put(store)
    for proof in proofs:
        store.calls.clear()
        store.bad_looks = 1
        proof(store)
        assert store.calls == [(call, KEY)] * 2


@pytest.mark.parametrize("proof", BY_READING)
def test_two_bad_looks_are_damage(store: Unsteady, proof: Proof) -> None:
    """There is no third look."""
    put(store)
    store.bad_looks = 2
    assert refused(store, proof) == (DamagedCopyError, OTHER, ["open", "open"])
    store.calls.clear()
    proof(store)


@pytest.mark.parametrize(("proofs", "call"), [(BY_READING, "open"), (BY_ASKING, "head")])
def test_what_is_missing_is_looked_for_twice(store: Unsteady, proofs: list[Proof], call: str) -> None:
    """Read or only asked for, it is named in the same words."""
    for proof in proofs:
        store.calls.clear()
        assert refused(store, proof) == (ObjectMissingError, MISSING, [call, call])


@pytest.mark.parametrize("proof", [*BY_READING, BY_ASKING[0]])
def test_another_size_is_named_by_its_numbers(store: Unsteady, proof: Proof) -> None:
    """Also where nothing is read."""
    put(store, DATA[:-1])
    kind, message, calls = refused(store, proof)
    assert (kind, message, len(calls)) == (WrongSizeError, SHORT, 2)


def test_the_size_alone_counts_where_nothing_is_read_back(store: Unsteady) -> None:
    """Other bytes of the right size are not seen then."""
    put(store, FLIPPED)
    prove(store, KEY, EXPECTED, read_back=False)
    assert refused(store, BY_READING[0])[1] == OTHER


@pytest.mark.parametrize("proof", [*BY_READING, *BY_ASKING])
def test_a_store_that_does_not_answer_is_asked_once(store: Unsteady, proof: Proof) -> None:
    """Its silence says nothing about a copy: the caller decides when to ask again."""

    def refuse(_call: str, _key: str) -> None:
        raise StoreUnavailableError("r2", "no answer")

    put(store)
    store.before = refuse
    kind, message, calls = refused(store, proof)
    assert (kind, message, len(calls)) == (StoreUnavailableError, "r2: no answer", 1)


@pytest.mark.parametrize("read_back", [True, False])
def test_what_is_described_is_what_was_proved(store: Unsteady, *, read_back: bool) -> None:
    """A base backup keeps the ETag of the very bytes that it read."""
    put(store)
    described = prove_described(store, KEY, EXPECTED, read_back=read_back)
    assert described == store.inner.head(KEY)
    store.inner.delete(KEY)
    put(store, FLIPPED if read_back else DATA[:-1])
    with pytest.raises(DamagedCopyError) as raised:
        prove_described(store, KEY, EXPECTED, read_back=read_back)
    assert raised.value.message == (OTHER if read_back else SHORT)


def test_progress_is_told_read_by_read(store: Unsteady) -> None:
    """The numbers of bytes add up to the object's size."""
    data = bytes((2 << 20) + 7)
    put(store, data)
    seen: list[int] = []
    prove(store, KEY, StoredBytes.of(data), on_bytes=seen.append)
    assert seen == [1 << 20, 1 << 20, 7]


def test_callers_say_the_same_of_the_same_damage(tmp_path: Path) -> None:
    """A refill's source and a verification name a changed bit alike."""
    store = WalStore("r2", tmp_path / "r2")
    key = store.add(NAME)
    path = store.path_of(key)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    found = StoredBytes.of(path.read_bytes())
    message = f"r2: object '{key}' has SHA-256 {found.sha256}, expected {StoredBytes.of(good).sha256}"
    with pytest.raises(DamagedCopyError) as raised:
        read_source(ClusterStore(store, LAYOUT), require_file_name(NAME))
    fault = CopyReader([]).read_wal(ClusterStore(store, LAYOUT), NAME, key, None).fault
    assert raised.value.message == message
    assert fault is not None
    assert fault.message == message


def test_an_encoding_is_what_its_bytes_are_proved_against(store: Unsteady) -> None:
    """Whatever knows a size and a SHA-256 can be given."""
    encoded = Encoder(Codec.ZSTD).encode(DATA)
    store.inner.put_if_absent(KEY, encoded.body, {})
    prove(store, KEY, encoded.encoding)
