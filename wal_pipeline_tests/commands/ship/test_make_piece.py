"""Tests how pieces are made: once for all stores, with digests that join, and never of bytes that changed."""

import hashlib
from datetime import UTC, datetime

import pytest

from wal_pipeline.archive.format.piece import EMPTY_SHA256
from wal_pipeline.archive.records import Codec, CommitTimes
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.ship.make_piece import LONG_AGO, HistoryChangedError, MadePiece, PieceMaker, TailPosition
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.piece_commits import PartCommits, PieceCommitReader
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline_tests.support.given_wal import SEGMENT, GivenWal

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DATA = bytes(range(251)) * 40
START = TailPosition.start_of(SEGMENT)


class CountingWal(GivenWal):
    """Given bytes, and how often some were read."""

    reads = 0

    def read(self, *arguments: object, **named: object) -> bytes:
        self.reads += 1
        return super().read(*arguments, **named)  # type: ignore[arg-type]


def maker_of(source: GivenWal) -> PieceMaker:
    """Return a maker that cannot read commits: the bytes are none of a server's."""
    return PieceMaker(source, Encoder(Codec.ZSTD), PieceCommitReader(PgWaldump()))


def make(source: GivenWal, start: TailPosition, end: int, maker: PieceMaker | None = None) -> MadePiece:
    """Make the piece from a place to an offset."""
    return (maker or maker_of(source)).make(start, end, source.look(), NOON)


def test_a_piece_says_what_it_is() -> None:
    """Offsets, digests of its content, of what is before it and of both; commits are unknown and not guessed."""
    source = GivenWal(DATA)
    first = make(source, START, 100)
    second = make(source, first.end, 700)
    assert (first.piece.from_offset, first.piece.to_offset, first.piece.before_sha256) == (0, 100, EMPTY_SHA256)
    assert second.piece.before_sha256 == first.piece.through_sha256 == hashlib.sha256(DATA[:100]).hexdigest()
    assert second.piece.through_sha256 == second.end.sha256 == hashlib.sha256(DATA[:700]).hexdigest()
    assert second.piece.sha256 == hashlib.sha256(DATA[100:700]).hexdigest()
    assert (second.piece.commit_times, second.piece.flushed_at) == (CommitTimes.UNKNOWN, NOON)
    opened = open_stored(bytes(second.encoded.body.data), Codec.ZSTD, encrypted=False, max_size_bytes=1000)
    assert opened == DATA[100:700]


def test_it_is_made_once_for_all_stores() -> None:
    """The next store that is at the same place gets the same object, and nothing is read again."""
    source = CountingWal(DATA)
    maker = maker_of(source)
    made = make(source, START, 5000, maker)
    reads = source.reads
    assert make(source, START, 5000, maker) is made
    assert source.reads == reads
    assert make(source, START, 5001, maker) is not made


def test_bytes_that_changed_are_not_continued() -> None:
    """A server that was set back may have written other bytes up to the same place, and on."""
    end = make(GivenWal(DATA), START, 3000).end
    with pytest.raises(HistoryChangedError) as caught:
        make(GivenWal(DATA[:2500] + bytes(3000)), end, 4000)
    assert caught.value.message == f"'{SEGMENT.name}' has other bytes before 3000 than were shipped"


def test_a_short_read_is_an_error() -> None:
    """A piece of fewer bytes than its name says is never made."""
    with pytest.raises(PostgresError) as caught:
        make(GivenWal(DATA[:50]), START, 100)
    assert caught.value.message == f"'{SEGMENT.name}' gave 50 bytes from 0, expected 100"


def test_a_walk_has_the_digest_at_each_offset() -> None:
    """The segment is read once for all of them."""
    source = GivenWal(DATA)
    places = maker_of(source).walk(SEGMENT, [700, 100, 100], source.look())
    assert {offset: place.sha256 for offset, place in places.items()} == {
        offset: hashlib.sha256(DATA[:offset]).hexdigest() for offset in (0, 100, 700)
    }


def test_known_commits_are_not_read_again() -> None:
    """Those of merged pieces are: the segment before may be gone."""
    source = GivenWal(DATA)
    known = PartCommits(CommitTimes.KNOWN, NOON, NOON)
    piece = maker_of(source).make(START, 100, source.look(), None, commits=known).piece
    assert (piece.commit_times, piece.last_commit_at, piece.flushed_at) == (CommitTimes.KNOWN, NOON, LONG_AGO)
