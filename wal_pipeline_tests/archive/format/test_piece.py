"""Tests a piece's metadata and key: what is written is read back, and what was not written by us is refused."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.piece import EMPTY_SHA256, Piece, piece_from_metadata, piece_to_metadata
from wal_pipeline.archive.records import Codec, CommitTimes, Encoding
from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.stores.base import check_metadata
from wal_pipeline.wal.names import require_file_name

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LAYOUT = Layout("backups", "main", 7412345678901234567)
PIECE = Piece(
    segment=require_file_name("00000001000000000000002A"),
    system_identifier=7412345678901234567,
    wal_segment_size=16 << 20,
    server_major=18,
    from_offset=0,
    to_offset=8192,
    flushed_at=NOON,
    sha256="ab" * 32,
    before_sha256=EMPTY_SHA256,
    through_sha256="cd" * 32,
    commit_times=CommitTimes.KNOWN,
    first_commit_at=NOON,
    last_commit_at=NOON,
)
ENCODING = Encoding(Codec.ZSTD, True, 1234, "ef" * 32, "12" * 16)


@given(
    st.integers(0, (16 << 20) - 1).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, 16 << 20))),
    st.sampled_from(Codec),
    st.booleans(),
    st.sampled_from([None, NOON]),
)
def test_metadata_and_key_are_read_back(
    offsets: tuple[int, int], codec: Codec, encrypted: bool, at: datetime | None
) -> None:
    """A piece is read back from its object as it was written, and every store can keep its metadata."""
    piece = replace(PIECE, from_offset=offsets[0], to_offset=offsets[1], first_commit_at=at, last_commit_at=at)
    encoding = replace(ENCODING, codec=codec, encrypted=encrypted)
    key = LAYOUT.piece_key(piece.name, codec, encrypted=encrypted)
    metadata = check_metadata("r2", key, piece_to_metadata(piece, encoding))
    assert len(metadata) <= 10
    assert piece_from_metadata(key, metadata) == (piece, encoding)
    stored = LAYOUT.parse_piece_key(key)
    assert stored is not None
    assert (stored.piece, stored.codec, stored.encrypted) == (piece.name, codec, encrypted)
    assert LAYOUT.parse_wal_key(key) is None


def test_a_piece_knows_its_place_in_the_wal() -> None:
    """Offsets become LSNs by the segment's name and size."""
    piece = replace(PIECE, from_offset=8192, to_offset=16 << 20)
    assert (str(piece.start_lsn), str(piece.end_lsn), piece.size_bytes) == ("0/2A002000", "0/2B000000", 16769024)


def test_the_key_sorts_by_the_offset() -> None:
    """A listing of a segment's folder yields its pieces in WAL order."""
    assert LAYOUT.piece_key(PIECE.name, Codec.GZIP, encrypted=True) == (
        "backups/main/7412345678901234567/tail/00000001/00000001000000000000002A/00000000-00002000.gz.age"
    )


@pytest.mark.parametrize(
    "rest",
    [
        "00000001/00000001000000000000002A/00002000-00002000",  # no byte
        "00000001/00000001000000000000002A/00002000-00001000.gz",
        "00000002/00000001000000000000002A/00000000-00002000.gz",  # another timeline's folder
        "00000001/00000001000000000000002A/0-2000.gz",
        "00000001/00000001000000000000002A.partial/00000000-00002000.gz",
        "00000001/00000002.history/00000000-00002000.gz",
        "00000001/00000001000000000000002A/manifest.json",
    ],
)
def test_a_strange_key_is_no_piece(rest: str) -> None:
    """Only the very key that is made for a piece is read as one."""
    assert LAYOUT.parse_piece_key(LAYOUT.tail_root + rest) is None


@pytest.mark.parametrize(
    ("group", "old", "new"),
    [
        ("piece-place", "segment-size=16777216", "segment-size=16777217"),
        ("piece-place", "to=8192", "to=0"),
        ("piece-place", "to=8192", "to=99999999"),
        ("piece-place", "segment=00000001000000000000002A", "segment=00000001.history"),
        ("piece-content", "before-sha256=" + EMPTY_SHA256, ""),
        ("piece-content", "sha256=" + "ab" * 32, "sha256=" + "AB" * 32),
        ("wal-commits", "commit-times=known", "commit-times=maybe"),
        ("wal-format", "1", "2"),
    ],
)
def test_metadata_that_cannot_be_read_names_the_object(group: str, old: str, new: str) -> None:
    """A value that is missing or wrong is an error with the object's key, never a guess."""
    metadata = piece_to_metadata(PIECE, ENCODING)
    assert old in metadata[group]
    with pytest.raises(InvalidWalFileError, match=r"piece 'tail/x' has metadata that cannot be read"):
        piece_from_metadata("tail/x", metadata | {group: metadata[group].replace(old, new, 1)})
