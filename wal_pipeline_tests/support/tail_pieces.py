"""Cuts a segment's bytes into pieces and puts them on a store, as the shipper does."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.piece import Piece, piece_to_metadata
from wal_pipeline.archive.records import Codec, CommitTimes
from wal_pipeline.catalog.values import Values
from wal_pipeline.codec.encoder import Encoded, Encoder
from wal_pipeline.commands.ship.records import RecordedPiece, ShippedTail, put_tail
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER

FLUSHED_AT = datetime(2026, 11, 29, 12, tzinfo=UTC)


def cut(
    name: str,
    data: bytes,
    cuts: Sequence[int],
    *,
    codec: Codec = Codec.GZIP,
    recipients: Sequence[str] = (),
    system_identifier: int = SYSTEM_IDENTIFIER,
    size: int = SEGMENT_BYTES,
    flushed_at: datetime = FLUSHED_AT,
) -> Iterator[tuple[Piece, Encoded]]:
    """Yield the pieces between the offsets ``cuts`` of a segment that begins with ``data``."""
    encoder = Encoder(codec, recipients=recipients)
    for begin, end in pairwise(cuts):
        piece = Piece(
            segment=require_file_name(name),
            system_identifier=system_identifier,
            wal_segment_size=size,
            server_major=18,
            from_offset=begin,
            to_offset=end,
            flushed_at=flushed_at,
            sha256=hashlib.sha256(data[begin:end]).hexdigest(),
            before_sha256=hashlib.sha256(data[:begin]).hexdigest(),
            through_sha256=hashlib.sha256(data[:end]).hexdigest(),
            commit_times=CommitTimes.UNKNOWN,
        )
        yield piece, encoder.encode(data[begin:end])


def put_pieces(store: Store, layout: Layout, pieces: Sequence[tuple[Piece, Encoded]]) -> list[str]:
    """Put pieces on a store and return their keys."""
    keys = []
    for piece, encoded in pieces:
        encoding = encoded.encoding
        key = layout.piece_key(piece.name, encoding.codec, encrypted=encoding.encrypted)
        store.put_if_absent(key, encoded.body, piece_to_metadata(piece, encoding))
        keys.append(key)
    return keys


def record_pieces(values: Values, store: str, pieces: Sequence[tuple[Piece, Encoded]]) -> None:
    """Record pieces as what a store has of the tail."""
    last = pieces[-1][0]
    recorded = tuple(RecordedPiece(piece, encoded.encoding) for piece, encoded in pieces)
    tail = ShippedTail(
        store,
        last.system_identifier,
        last.segment.timeline,
        recorded,
        last.end_lsn,
        last.flushed_at,
        None,
        behind_p50_seconds=1.0,
        behind_p99_seconds=2.0,
        behind_seconds=0.0,
    )
    put_tail(values, tail)
