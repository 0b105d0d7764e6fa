"""Cuts a segment's bytes into pieces as shipping does, and puts them onto a store."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from wal_pipeline.archive.format.piece import Piece, piece_to_metadata
from wal_pipeline.archive.records import Codec, CommitTimes
from wal_pipeline.archive.recovery.tail import HeldPiece
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name

FLUSHED_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def cut(
    name: str,
    data: bytes,
    places: Iterable[int],
    *,
    system_identifier: int,
    wal_segment_size: int,
    flushed_at: datetime = FLUSHED_AT,
    commit_times: CommitTimes = CommitTimes.KNOWN,
    server_major: int | None = 18,
) -> list[Piece]:
    """Cut the segment ``name`` at each of ``places``, offsets of which the first is mostly 0, into pieces.

    Each is flushed a second after the one before it. They have no commits: set them with ``dataclasses.replace``.
    """
    pieces = []
    for number, (begin, end) in enumerate(pairwise(places)):
        pieces.append(
            Piece(
                segment=require_file_name(name),
                system_identifier=system_identifier,
                wal_segment_size=wal_segment_size,
                server_major=server_major,
                from_offset=begin,
                to_offset=end,
                flushed_at=flushed_at + timedelta(seconds=number),
                sha256=hashlib.sha256(data[begin:end]).hexdigest(),
                before_sha256=hashlib.sha256(data[:begin]).hexdigest(),
                through_sha256=hashlib.sha256(data[:end]).hexdigest(),
                commit_times=commit_times,
            )
        )
    return pieces


def with_commits(piece: Piece, first_at: datetime, last_at: datetime) -> Piece:
    """Return the piece with commits at these times."""
    return replace(piece, commit_times=CommitTimes.KNOWN, first_commit_at=first_at, last_commit_at=last_at)


def held(pieces: Iterable[Piece], store: str = "r2") -> list[HeldPiece]:
    """Return the pieces as held by a store, under keys that say where they are."""
    return [HeldPiece(one, store, f"{one.from_offset:08X}-{one.to_offset:08X}") for one in pieces]


def put_pieces(place: ClusterStore, pieces: Iterable[Piece], data: bytes, encoder: Encoder | None = None) -> list[str]:
    """Put pieces of a segment, whose bytes are ``data``, onto a store; return their keys."""
    keys = []
    for one in pieces:
        encoded = (encoder or Encoder(Codec.ZSTD)).encode(data[one.from_offset : one.to_offset])
        encoding = encoded.encoding
        key = place.layout.piece_key(one.name, encoding.codec, encrypted=encoding.encrypted)
        place.store.put_if_absent(key, encoded.body, piece_to_metadata(one, encoding))
        keys.append(key)
    return keys


def even_places(end: int, count: int) -> Sequence[int]:
    """Return the offsets that cut ``end`` bytes into about ``count`` equal pieces."""
    step = max(1, end // count)
    return [*range(0, end, step), end]
