"""Tests one piece on one store: it is stored once, proved, adopted, mended, and never overwritten."""

from dataclasses import replace
from pathlib import Path

import pytest

from wal_pipeline.archive.format.piece import Piece, piece_from_metadata
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoded, Encoder
from wal_pipeline.commands.ship.put_piece import piece_object_key, put_piece, same_content
from wal_pipeline.commands.ship.records import RecordedPiece
from wal_pipeline.errors import CopyConflictError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.archive_scene import WatchedStore, folder_store, layout
from wal_pipeline_tests.support.pieces import cut
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER

DATA = bytes(range(256)) * 40


def piece_of(data: bytes = DATA) -> Piece:
    """Return the first piece of a segment."""
    return cut(
        "000000010000000000000003", data, [0, len(data)], system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=1 << 20
    )[0]


def encoded_of(data: bytes = DATA, codec: Codec = Codec.ZSTD) -> Encoded:
    return Encoder(codec).encode(data)


@pytest.fixture
def place(tmp_path: Path) -> ClusterStore:
    """A cluster's part of a folder store whose calls are watched."""
    return ClusterStore(WatchedStore(folder_store("r2", tmp_path / "r2")), layout())


def calls(place: ClusterStore) -> list[str]:
    """Return the calls of the store, without their keys."""
    assert isinstance(place.store, WatchedStore)
    return [call for call, _ in place.store.calls]


def test_it_is_stored_and_read_back(place: ClusterStore) -> None:
    """Its key and metadata say all that a plan needs."""
    made = put_piece(place, piece_of(), encoded_of(), read_back=True)
    assert calls(place) == ["put", "open"]
    found = place.store.head(piece_object_key(place, made))
    assert found is not None
    assert piece_from_metadata(found.key, found.metadata) == (made.piece, made.encoding)


def test_one_that_is_there_is_adopted(place: ClusterStore) -> None:
    """After a kill the same bytes may have been encrypted or seen at another moment: what is there counts."""
    first = put_piece(place, piece_of(), encoded_of(), read_back=True)
    later = replace(piece_of(), flushed_at=piece_of().flushed_at.replace(year=2027))
    assert put_piece(place, later, encoded_of(), read_back=True) == first
    assert calls(place) == ["put", "open", "put", "head", "open"]


def test_another_content_is_never_overwritten(place: ClusterStore) -> None:
    """The error says which object has which history."""
    first = put_piece(place, piece_of(), encoded_of(), read_back=True)
    other = bytes(len(DATA))
    with pytest.raises(CopyConflictError) as caught:
        put_piece(place, piece_of(other), encoded_of(other), read_back=True)
    key = piece_object_key(place, first)
    assert caught.value.message == (
        f"r2: piece '{key}' leads to WAL with SHA-256 {first.piece.through_sha256}, the server's has "
        f"{piece_of(other).through_sha256}: two histories"
    )
    assert "delete" not in calls(place)


def test_an_object_of_somebody_else_is_never_overwritten(place: ClusterStore) -> None:
    """It may be anything."""
    made = RecordedPiece(piece_of(), encoded_of().encoding)
    place.store.put_if_absent(piece_object_key(place, made), Body.of(b"mine"), {})
    with pytest.raises(CopyConflictError, match="metadata that cannot be read"):
        put_piece(place, piece_of(), encoded_of(), read_back=True)
    assert "delete" not in calls(place)


def test_a_damaged_one_is_stored_again(place: ClusterStore) -> None:
    """Its metadata promise the same content, and its bytes are others, read twice."""
    encoded = encoded_of()
    made = put_piece(place, piece_of(), encoded, read_back=True)
    key = piece_object_key(place, made)
    found = place.store.head(key)
    assert found is not None
    place.store.delete(key)
    place.store.put_if_absent(key, Body.of(bytes(encoded.encoding.size_bytes)), found.metadata)
    assert put_piece(place, piece_of(), encoded, read_back=True) == made
    with place.store.open(key) as stream:
        assert stream.read() == bytes(encoded.body.data)


def test_without_reading_back_its_size_counts(place: ClusterStore) -> None:
    """The setting saves the download."""
    put_piece(place, piece_of(), encoded_of(), read_back=False)
    assert calls(place) == ["put", "head"]


def test_the_same_content() -> None:
    """The moment does not count, the bytes before it do."""
    piece = piece_of()
    assert same_content(piece, replace(piece, flushed_at=piece.flushed_at.replace(year=2027)))
    assert not same_content(piece, replace(piece, before_sha256="ab" * 32))
