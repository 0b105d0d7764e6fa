"""One wording says how stored bytes differ from what they must be."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.codec.decoder import MAX_STORED_BYTES
from wal_pipeline.commands.copies.stored_bytes import (
    HashedStream,
    StoredBytes,
    difference,
    require_bytes,
    require_content,
    require_size,
    require_wal_size,
)
from wal_pipeline.errors import DamagedCopyError
from wal_pipeline.stores.base import Store
from wal_pipeline_tests.support.archive_scene import folder_store

KEY = "a/object"
DATA = b"what was stored"
EXPECTED = StoredBytes.of(DATA)
FLIPPED = b"what was stoned"
OTHER = f"r2: object '{KEY}' has SHA-256 {StoredBytes.of(FLIPPED).sha256}, expected {EXPECTED.sha256}"
SHORT = f"r2: object '{KEY}' has 14 bytes, expected 15"


@pytest.fixture
def store(quick_folder: Path) -> Store:
    """A store, for its name."""
    return folder_store("r2", quick_folder / "r2")


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=6))
def test_a_hashed_stream_passes_on_and_hashes_all_bytes(data: bytes, sizes: list[int]) -> None:
    """However far it was read, its digest is that of the whole."""
    stream = HashedStream(io.BytesIO(data))
    passed = b"".join(stream.read(size) for size in sizes)
    assert data.startswith(passed)
    assert stream.stored() == stream.stored() == StoredBytes.of(data)


def test_each_difference_has_one_wording(store: Store) -> None:
    """The size counts before the SHA-256; a file's content is told from the stored bytes."""
    found = StoredBytes.of(FLIPPED)
    assert difference(KEY, EXPECTED, EXPECTED) is None
    assert f"r2: {difference(KEY, found, EXPECTED)}" == OTHER
    assert f"r2: {difference(KEY, StoredBytes.of(FLIPPED[:-1]), EXPECTED)}" == SHORT
    require_bytes(store, KEY, EXPECTED, EXPECTED)
    require_size(store, KEY, 7, 7)
    require_wal_size(store, KEY, MAX_STORED_BYTES)
    require_content(store, KEY, DATA, EXPECTED)
    refusals: dict[str, Callable[[], None]] = {
        OTHER: lambda: require_bytes(store, KEY, found, EXPECTED),
        SHORT: lambda: require_size(store, KEY, len(DATA) - 1, len(DATA)),
        f"r2: object '{KEY}' has {MAX_STORED_BYTES + 1} bytes, more than any WAL file": lambda: require_wal_size(
            store, KEY, MAX_STORED_BYTES + 1
        ),
        OTHER.replace("has SHA-256", "has content with SHA-256"): lambda: require_content(
            store, KEY, FLIPPED, EXPECTED
        ),
        f"r2: object '{KEY}' has content of 1 bytes, expected {len(DATA)}": lambda: require_content(
            store, KEY, b"x", EXPECTED
        ),
    }
    for message, refuse in refusals.items():
        with pytest.raises(DamagedCopyError) as raised:
            refuse()
        assert raised.value.message == message
