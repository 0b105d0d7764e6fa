"""Tests how a new shipper finds the end of the pieces that an earlier one left, by the server's own bytes."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.piece import Piece
from wal_pipeline.archive.records import Codec, Encoding
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.ship.held_pieces import HeldTail, list_tail, longest_chain, resume_segment
from wal_pipeline.commands.ship.make_piece import PieceMaker
from wal_pipeline.commands.ship.records import RecordedPiece
from wal_pipeline.errors import CopyConflictError
from wal_pipeline.postgres.piece_commits import PieceCommitReader
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.archive_scene import WatchedStore, folder_store, layout
from wal_pipeline_tests.support.given_wal import SEGMENT, SIZE, GivenWal
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER

DATA = random.Random(3).randbytes(10_000)  # noqa: S311 - any bytes
ENCODING = Encoding(Codec.NONE, False, 1, "ab" * 32, "cd" * 16)


@pytest.fixture
def place(tmp_path: Path) -> ClusterStore:
    """A cluster's part of a folder store."""
    return ClusterStore(WatchedStore(folder_store("r2", tmp_path / "r2")), layout())


def pieces_of(places: Sequence[int], data: bytes = DATA) -> list[Piece]:
    """Cut the segment."""
    return cut(SEGMENT.name, data, places, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SIZE)


def put(place: ClusterStore, *places: int, data: bytes = DATA) -> list[str]:
    """Put the pieces between these offsets, and return their keys."""
    return put_pieces(place, pieces_of(places, data), data)


def resume(place: ClusterStore, data: bytes = DATA) -> HeldTail:
    """Resume as a new shipper does."""
    source = GivenWal(data)
    maker = PieceMaker(source, Encoder(Codec.ZSTD), PieceCommitReader(PgWaldump()))
    return resume_segment(place, SEGMENT, list_tail(place).get(SEGMENT, []), maker, source.look(), read_back=True)


def bounds(held: HeldTail) -> list[tuple[int, int]]:
    """Return the offsets of a chain's pieces."""
    return [(one.recorded.piece.from_offset, one.recorded.piece.to_offset) for one in held.chain]


def test_a_store_without_pieces(place: ClusterStore) -> None:
    """It begins at the segment's start."""
    held = resume(place)
    assert (held.chain, held.end.offset) == ((), 0)


def test_it_goes_on_at_the_end_of_the_chain(place: ClusterStore) -> None:
    """The place has the digest of all content before it; the last piece is read back, for it may be unproven."""
    put(place, 0, 100, 250, 4000)
    assert isinstance(place.store, WatchedStore)
    place.store.calls.clear()
    held = resume(place)
    assert bounds(held) == [(0, 100), (100, 250), (250, 4000)]
    assert held.end.sha256 == pieces_of([0, 4000])[0].sha256
    assert [key.rsplit("/", 1)[1] for call, key in place.store.calls if call == "open"] == ["000000FA-00000FA0.zst"]


def test_a_hole_ends_the_chain(place: ClusterStore) -> None:
    """What lies behind it is kept until the segment is archived."""
    put(place, 0, 100)
    (key,) = put_pieces(place, pieces_of([0, 200, 300])[1:], DATA)
    held = resume(place)
    assert bounds(held) == [(0, 100)]
    assert held.others == (key,)


def test_a_merged_piece_beside_small_ones(place: ClusterStore) -> None:
    """It is read back, and then the small ones are to spare."""
    small = put(place, 0, 100, 200, 300)
    put_pieces(place, pieces_of([0, 300]), DATA)
    held = resume(place)
    assert bounds(held) == [(0, 300)]
    assert held.spare == tuple(sorted(small))


def test_a_damaged_merged_piece_is_removed(place: ClusterStore) -> None:
    """The small ones are still there, and count."""
    put(place, 0, 100, 200, 300)
    (key,) = put_pieces(place, pieces_of([0, 300]), DATA)
    found = place.store.head(key)
    assert found is not None
    place.store.delete(key)
    place.store.put_if_absent(key, Body.of(bytes(found.size_bytes)), found.metadata)
    held = resume(place)
    assert bounds(held) == [(0, 100), (100, 200), (200, 300)]
    assert place.store.head(key) is None


def test_pieces_of_another_history_are_a_conflict(place: ClusterStore) -> None:
    """The server has other bytes there."""
    put(place, 0, 100)
    with pytest.raises(CopyConflictError, match="two histories"):
        resume(place, bytes(10_000))


def test_pieces_ahead_of_the_server_are_cuts(place: ClusterStore) -> None:
    """A standby may be behind; a piece that ends there too will show whether it is the same history."""
    put(place, 0, 100, 5000)
    held = resume(place, DATA[:2000])
    assert bounds(held) == [(0, 100)]
    assert held.cuts == {5000: pieces_of([0, 5000])[0].sha256}


def test_objects_that_are_no_pieces_are_passed_over(place: ClusterStore) -> None:
    """One without metadata, and one whose key says something else."""
    place.store.put_if_absent(f"{layout().tail_folder(SEGMENT)}00000000-00000040.zst", Body.of(b"x"), {})
    place.store.put_if_absent(f"{layout().tail_folder(SEGMENT)}readme", Body.of(b"x"), {})
    put(place, 0, 100)
    assert bounds(resume(place)) == [(0, 100)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=12), st.randoms())
def test_the_longest_chain_is_found(spans: list[tuple[int, int]], shuffled: random.Random) -> None:
    """Whatever pieces there are, in any order: it joins, and no other chain leads further."""
    pieces = [pieces_of([start, start + length])[0] for start, length in spans]
    recorded = [RecordedPiece(piece, ENCODING) for piece in pieces]
    shuffled.shuffle(recorded)
    chain = [one.piece for one in longest_chain(recorded)]
    end = 0
    for piece in chain:
        assert piece.from_offset == end
        end = piece.to_offset
    reached = {0}
    for piece in sorted(pieces, key=lambda piece: piece.from_offset):
        if piece.from_offset in reached:
            reached.add(piece.to_offset)
    assert end == max(reached)


def test_a_swapped_piece_joins_nothing() -> None:
    """Its offsets fit, and its digests do not."""
    first, second = pieces_of([0, 100, 200])
    swapped = replace(second, before_sha256="ab" * 32)
    chain = longest_chain([RecordedPiece(one, ENCODING) for one in (first, swapped)])
    assert [one.piece for one in chain] == [first]
