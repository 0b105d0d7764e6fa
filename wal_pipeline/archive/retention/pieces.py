"""Decides which pieces of the open segment one store keeps, and why: all that may still be needed stays.

Pieces are superseded where the whole segment is verified on the same store. Where it is not, they may be all that the
store has of these commits: then they go only when they are older than the window and the segment itself would go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.retention.wal import OLD, UNDATED, Keep, WalKeeper
from wal_pipeline.wal.names import WalFileName, require_file_name

_PREFIX: Final = "tail/"
_SUPERSEDED: Final = Keep(kept=False, reason="superseded: the whole segment is verified on this store")
_YOUNG: Final = Keep(kept=True, reason="younger than the window, and the whole segment is not verified on this store")


@dataclass(frozen=True, slots=True)
class SegmentPieces:
    """The pieces that one store has of a segment: how many objects, their bytes, and when the newest was stored."""

    objects: int
    stored_bytes: int
    newest_at: datetime


@dataclass(frozen=True, slots=True)
class PiecesOnStore:
    """All pieces on one store, by their segments' names.

    ``proven`` are the segments of which the store has a whole copy that was verified. ``unjudged`` says of segments why
    their place in the archive is not known.
    """

    segments: Mapping[str, SegmentPieces] = field(default_factory=dict)
    proven: frozenset[str] = frozenset()
    unjudged: Mapping[str, str] = field(default_factory=dict)

    @property
    def pieces_at(self) -> dict[str, datetime]:
        """When the newest piece of each segment was stored, without those whose place is not known."""
        return {name: one.newest_at for name, one in self.segments.items() if name not in self.unjudged}


def pieces_name(segment: str) -> str:
    """Return the name under which a plan has the pieces of a segment: not the segment's, which is a file's."""
    return f"{_PREFIX}{segment}"


def segment_of(name: str) -> str:
    """Return the segment of a name that ``pieces_name`` made."""
    return name.removeprefix(_PREFIX)


def judge_pieces(segment: str, tail: PiecesOnStore, keeper: WalKeeper) -> Keep:
    """Decide about all pieces of one segment."""
    if segment in tail.proven:
        return _SUPERSEDED
    if segment in tail.unjudged:
        return Keep(kept=True, reason=tail.unjudged[segment])
    if tail.segments[segment].newest_at > keeper.begins_at:
        return _YOUNG
    file = require_file_name(segment)
    if _may_be_newest(file, keeper.contents):
        return Keep(kept=True, reason=f"timeline {file.timeline} has no archived segment yet")
    found = keeper.judge(file)
    return OLD if found is UNDATED else found  # no record says how old the segment is, but its pieces do


def _may_be_newest(file: WalFileName, contents: ArchiveContents) -> bool:
    """Say whether pieces are of a timeline that has no whole file and that no newer one is known to have left."""
    main = contents.main
    return file.timeline not in contents.paths and (main is None or main.timeline <= file.timeline)
