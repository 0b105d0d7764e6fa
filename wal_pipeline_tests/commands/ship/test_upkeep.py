"""Tests which pieces are merged. What the upkeep does on a store is in ``test_shipper.py``."""

import hashlib
from collections.abc import Sequence

from wal_pipeline.archive.records import Codec, Encoding
from wal_pipeline.commands.ship.held_pieces import ChainedPiece
from wal_pipeline.commands.ship.make_piece import TailPosition
from wal_pipeline.commands.ship.records import RecordedPiece
from wal_pipeline.commands.ship.upkeep import find_small
from wal_pipeline_tests.support.given_wal import SEGMENT
from wal_pipeline_tests.support.pieces import cut

MIB = 1 << 20
ENCODING = Encoding(Codec.NONE, False, 1, "ab" * 32, "cd" * 16)


def chain(
    sizes: Sequence[int], levels: Sequence[int] | None = None, wal_segment_size: int = 16 * MIB
) -> list[ChainedPiece]:
    """Return neighbouring pieces of these sizes."""
    places = [0]
    for size in sizes:
        places.append(places[-1] + size)
    pieces = cut(SEGMENT.name, b"", places, system_identifier=7, wal_segment_size=wal_segment_size)
    return [
        ChainedPiece(
            RecordedPiece(piece, ENCODING), TailPosition(SEGMENT, piece.from_offset, hashlib.sha256(), b""), level
        )
        for piece, level in zip(pieces, levels or [0] * len(sizes), strict=True)
    ]


def test_sixteen_neighbours_are_merged() -> None:
    """Fifteen wait for one more."""
    pieces = chain([100] * 17)
    assert find_small(pieces[:15]) is None
    assert find_small(pieces) == pieces[:16]


def test_levels_are_kept_apart() -> None:
    """Merged pieces are merged again when there are sixteen of them, so that each byte is stored few times."""
    pieces = chain([1600] * 3 + [100] * 16, [1] * 3 + [0] * 16)
    assert find_small(pieces) == pieces[3:]
    assert find_small(chain([1600] * 3 + [100] * 15, [1] * 3 + [0] * 15)) is None
    again = chain([1600] * 16, [1] * 16)
    assert find_small(again) == again


def test_large_pieces_stay() -> None:
    """A merged piece is read into memory: it has at most 4 MiB, or a 64th of a larger segment."""
    assert find_small(chain([MIB] * 16)) is None
    large = chain([MIB] * 16, wal_segment_size=1024 * MIB)
    assert find_small(large) == large


def test_a_segment_has_tens_of_pieces() -> None:
    """At an interval of a second, a segment that is an hour old has few objects."""
    pieces: list[ChainedPiece] = []
    for number in range(3600):
        pieces += chain([100]) if not number else [chain([number * 100, 100])[1]]
        while (small := find_small(pieces)) is not None:
            first = next(place for place, one in enumerate(pieces) if one is small[0])
            begin, end = small[0].recorded.piece.from_offset, small[-1].recorded.piece.to_offset
            merged = chain([begin, end - begin])[1] if begin else chain([end])[0]
            pieces[first : first + 16] = [ChainedPiece(merged.recorded, merged.start, small[0].level + 1)]
    assert len(pieces) <= 45
