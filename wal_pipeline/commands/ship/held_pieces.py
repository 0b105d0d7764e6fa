"""Finds the pieces that a store holds after an earlier shipper, and where a verified chain of them ends."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wal_pipeline.archive.format.piece import piece_from_metadata
from wal_pipeline.archive.recovery.tail import HeldPiece, join_pieces
from wal_pipeline.commands.copies.prove import prove
from wal_pipeline.commands.ship.make_piece import PieceMaker, TailPosition
from wal_pipeline.commands.ship.put_piece import piece_object_key, two_histories
from wal_pipeline.commands.ship.records import RecordedPiece
from wal_pipeline.errors import DamagedCopyError, InvalidWalFileError, ObjectMissingError
from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import WalFileName

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChainedPiece:
    """A verified piece of a store's chain, and the place where it begins.

    ``level``: how many times the pieces in it were merged.
    """

    recorded: RecordedPiece
    start: TailPosition
    level: int = 0


@dataclass(frozen=True, slots=True)
class HeldTail:
    """The pieces of one segment on a store that are the server's own.

    ``chain`` joins from the segment's start to ``end`` and is verified. ``spare`` are keys of pieces that the chain
    does not need, ``others`` those of which that is not known. ``cuts`` are offsets that the server has not flushed yet
    and at which pieces end, with the SHA-256 of the content before them: a piece that is cut there shows whether they
    are of the same history.
    """

    chain: tuple[ChainedPiece, ...]
    end: TailPosition
    spare: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    cuts: Mapping[int, str] = field(default_factory=dict)


def list_tail(place: ClusterStore) -> dict[WalFileName, list[str]]:
    """Return the keys of the pieces on a store, by segment. One LIST. Raises: StoreError."""
    found: dict[WalFileName, list[str]] = {}
    for listed in place.store.list(place.layout.tail_root):
        name = place.layout.parse_piece_key(listed.key)
        if name is not None:
            found.setdefault(name.piece.segment, []).append(listed.key)
    return found


def resume_segment(
    place: ClusterStore,
    segment: WalFileName,
    keys: Iterable[str],
    maker: PieceMaker,
    seen: FlushedWal,
    *,
    read_back: bool,
) -> HeldTail:
    """Compare the pieces of a segment with the server's own bytes, and verify those of the chain that may be unproven.

    A shipper that was killed can leave a piece that was put and not read back: its last one, or a merged one beside
    those that it replaces. What is damaged is removed: its bytes are at hand.

    Raises: CopyConflictError where the store holds another history; SegmentGoneError, PostgresError, StoreError.
    """
    keys = list(keys)
    pieces = [one for key in keys if (one := _described(place, key)) is not None and _is_of(one, segment, seen)]
    start = segment.start_lsn(seen.wal_segment_size)
    limit = min(seen.wal_segment_size, seen.lsn - start) if segment.timeline == seen.timeline else seen.wal_segment_size
    present = [one for one in pieces if one.piece.to_offset <= limit]
    offsets = [offset for one in present for offset in (one.piece.from_offset, one.piece.to_offset)]
    places = maker.walk(segment, offsets, seen)
    for one in present:
        _require_ours(place, one, places)
    while True:
        chain = longest_chain(present)
        unproven = next((one for one in _unproven(chain, present) if not _prove(place, one, read_back)), None)
        if unproven is None:
            break
        present.remove(unproven)
    end = chain[-1].piece.to_offset if chain else 0
    used = {piece_object_key(place, one) for one in chain}
    spare = {piece_object_key(place, one) for one in present if one.piece.to_offset <= end} - used
    return HeldTail(
        chain=tuple(ChainedPiece(one, places[one.piece.from_offset]) for one in chain),
        end=places.get(end, TailPosition.start_of(segment)),
        spare=tuple(sorted(spare)),
        others=tuple(key for key in keys if key not in used | spare),
        cuts={one.piece.to_offset: one.piece.through_sha256 for one in pieces if one.piece.to_offset > limit},
    )


def longest_chain(pieces: Sequence[RecordedPiece]) -> tuple[RecordedPiece, ...]:
    """Return the chain that leads furthest from the segment's start, and of those the one with the fewest pieces."""
    recorded = {one.piece: one for one in pieces}
    joined = join_pieces(HeldPiece(piece, store="", object_key="") for piece in recorded)
    return () if joined is None else tuple(recorded[one.piece] for one in joined.pieces)


def _described(place: ClusterStore, key: str) -> RecordedPiece | None:
    found = place.store.head(key)
    if found is None:
        return None
    try:
        recorded = RecordedPiece(*piece_from_metadata(key, found.metadata))
    except InvalidWalFileError as error:
        _log.warning("%s: %s", place.name, error.message)
        return None
    return recorded if piece_object_key(place, recorded) == key else None


def _is_of(one: RecordedPiece, segment: WalFileName, seen: FlushedWal) -> bool:
    piece = one.piece
    return (piece.segment, piece.system_identifier, piece.wal_segment_size) == (
        segment,
        seen.system_identifier,
        seen.wal_segment_size,
    )


def _require_ours(place: ClusterStore, one: RecordedPiece, places: dict[int, TailPosition]) -> None:
    """Raises: CopyConflictError where the server has other bytes."""
    piece = one.piece
    before, through = places[piece.from_offset].sha256, places[piece.to_offset].sha256
    if (piece.before_sha256, piece.through_sha256) != (before, through):
        raise two_histories(place.name, piece_object_key(place, one), piece.through_sha256, through)


def _unproven(chain: tuple[RecordedPiece, ...], pieces: Sequence[RecordedPiece]) -> list[RecordedPiece]:
    """Return the pieces of a chain that a killed shipper may not have read back."""
    doubled = [one for one in chain if any(_lies_in(other, one) for other in pieces)]
    return [*doubled, *(one for one in chain[-1:] if one not in doubled)]


def _lies_in(small: RecordedPiece, large: RecordedPiece) -> bool:
    inside = large.piece.from_offset <= small.piece.from_offset and small.piece.to_offset <= large.piece.to_offset
    return inside and small.piece.size_bytes < large.piece.size_bytes


def _prove(place: ClusterStore, one: RecordedPiece, read_back: bool) -> bool:
    """Verify a piece; where it is damaged, remove it and return False. Raises: StoreError."""
    key = piece_object_key(place, one)
    try:
        prove(place.store, key, one.encoding, read_back=read_back)
    except ObjectMissingError:
        return False
    except DamagedCopyError as error:
        _log.warning("%s; it is removed and shipped again", error.message)
        place.store.delete(key)
        return False
    return True
