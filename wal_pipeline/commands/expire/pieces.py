"""Reads from a survey which pieces one store has, and which of their segments are proven to be there as a whole."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.archive.retention.pieces import PiecesOnStore, SegmentPieces
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.expire.evidence import segment_sizes
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.commands.ship.records import RecordedPiece, put_tail, read_tail


def read_tail_of(survey: ClusterSurvey, store: str) -> PiecesOnStore:
    """Return the pieces of one store, hidden versions too.

    A whole segment counts as proven where its copy is recorded as verified and is listed with the recorded size. A copy
    that nobody has recorded, or that is on another store alone, proves nothing here.
    """
    found: dict[str, list[_PieceObject]] = defaultdict(list)
    for one in _objects(survey, store):
        found[one.segment].append(one)
    segments = {segment: _together(items) for segment, items in found.items()}
    proven = frozenset(segment for segment in segments if is_proven(survey, store, segment))
    sizes = segment_sizes(survey)
    if sizes <= {survey.contents.wal_segment_size}:
        return PiecesOnStore(segments, proven)
    reason = "this archive has segments of several sizes, and nobody can say to which of them the pieces belong"
    return PiecesOnStore(segments, proven, dict.fromkeys(segments, reason))


def _together(items: list["_PieceObject"]) -> SegmentPieces:
    return SegmentPieces(
        objects=len({one.key for one in items}),
        stored_bytes=sum(one.size_bytes for one in items),
        newest_at=max(one.at for one in items),
    )


def is_proven(survey: ClusterSurvey, store: str, segment: str) -> bool:
    """Say whether a store is known to have a verified copy of a whole segment."""
    recorded, objects = survey.records.copy(store, segment), survey.listings[store].wal.get(segment, ())
    if recorded is None or recorded.status is not CopyStatus.VERIFIED:
        return False
    return recorded.size_bytes in [item.size_bytes for item in objects]


def piece_keys(survey: ClusterSurvey, store: str) -> dict[str, tuple[str, ...]]:
    """Return the keys of each segment's pieces, hidden ones too, the last piece first.

    A crash between two of them then leaves pieces that still join from the segment's start.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for one in _objects(survey, store):
        found[one.segment].add(one.key)
    return {segment: tuple(sorted(keys, reverse=True)) for segment, keys in found.items()}


@dataclass(frozen=True, slots=True)
class _PieceObject:
    """A piece's object, or all hidden versions of one."""

    segment: str
    key: str
    size_bytes: int
    at: datetime


def _objects(survey: ClusterSurvey, store: str) -> Iterator[_PieceObject]:
    listing = survey.listings[store]
    for segment, items in listing.pieces.items():
        for item in items:
            yield _PieceObject(segment, item.key, item.size_bytes, item.modified_at)
    for key, size_bytes in listing.hidden.size_bytes.items():
        stored = survey.layout.parse_piece_key(key)
        if stored is not None:
            yield _PieceObject(stored.piece.segment.name, key, size_bytes, listing.hidden.newest_at[key])


def forget_pieces(catalog: Catalog, layout: Layout, store: str, gone: Collection[str]) -> None:
    """Take pieces that were removed, by their keys, out of the record of what a store has.

    A running shipper removes superseded pieces itself and writes its record anew; this is for one that runs no more,
    so that no window is worked out from pieces that are gone. Raises: CatalogError.
    """
    tail = read_tail(catalog.values, store)
    if tail is None or tail.system_identifier != layout.system_identifier:
        return
    left = tuple(one for one in tail.pieces if _key(layout, one) not in gone)
    if len(left) < len(tail.pieces):
        put_tail(catalog.values, replace(tail, pieces=left))


def _key(layout: Layout, recorded: RecordedPiece) -> str:
    encoding = recorded.encoding
    return layout.piece_key(recorded.piece.name, encoding.codec, encrypted=encoding.encrypted)
