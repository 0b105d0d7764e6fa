"""Joins pieces of one segment by their digests to the longest beginning of it that they prove."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from wal_pipeline.archive.format.piece import EMPTY_SHA256, Piece
from wal_pipeline.archive.records import CommitTimes, WalFile
from wal_pipeline.wal.joint import SegmentJoints
from wal_pipeline.wal.lsn import MAX_LSN, Lsn
from wal_pipeline.wal.names import FileKind, WalFileName
from wal_pipeline.wal.timeline import TimelineHistory

_Place = tuple[int, str]  # an offset, and the SHA-256 of all content of the segment before it
_START: _Place = (0, EMPTY_SHA256)
Tails = Mapping[int, Mapping[int, "JoinedTail"]]
"""Tails by timeline and segment number."""


@dataclass(frozen=True, slots=True)
class HeldPiece:
    """A piece that lies on a store, under ``object_key``."""

    piece: Piece
    store: str
    object_key: str

    @property
    def begins(self) -> _Place:
        """Where it begins, and what it continues."""
        return self.piece.from_offset, self.piece.before_sha256

    @property
    def ends(self) -> _Place:
        """Where it ends, and what it leads to."""
        return self.piece.to_offset, self.piece.through_sha256


@dataclass(frozen=True, slots=True)
class JoinedTail:
    """The beginning of a segment, from pieces that continue one another without a hole.

    It ends before ``end_offset``, which is 0 where nothing of it is proven. ``conflict`` is a sentence where pieces of
    two histories are there: then it ends where both still agree.
    """

    segment: WalFileName
    wal_segment_size: int
    pieces: tuple[HeldPiece, ...]
    end_offset: int
    conflict: str | None = None

    @property
    def number(self) -> int:
        """The segment's number."""
        return self.segment.number(self.wal_segment_size)

    @property
    def is_whole(self) -> bool:
        """Whether the pieces are all of the segment."""
        return self.end_offset == self.wal_segment_size

    @property
    def end_lsn(self) -> Lsn:
        """The first LSN after it."""
        return Lsn(min(self.segment.start_lsn(self.wal_segment_size) + self.end_offset, MAX_LSN))

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores from which its pieces come, in order."""
        return tuple(sorted({one.store for one in self.pieces}))

    @property
    def flushed_at(self) -> datetime | None:
        """The moment of the server's clock up to which it holds each commit; None where it holds nothing."""
        return max((one.piece.flushed_at for one in self.pieces), default=None)

    @property
    def commit_times(self) -> CommitTimes:
        """Whether the times of its commits are known."""
        known = all(one.piece.commit_times is CommitTimes.KNOWN for one in self.pieces)
        return CommitTimes.KNOWN if known else CommitTimes.UNKNOWN

    @property
    def first_commit_at(self) -> datetime | None:
        """The time of its first commit that is known."""
        times = (one.piece.first_commit_at for one in self.pieces)
        return next((at for at in times if at is not None), None)

    @property
    def last_commit_at(self) -> datetime | None:
        """The time of its last commit that is known, in WAL order."""
        times = (one.piece.last_commit_at for one in reversed(self.pieces))
        return next((at for at in times if at is not None), None)

    def record(self, joints: SegmentJoints | None = None) -> WalFile:
        """Return it as a segment's record, whose end is the tail's; ``joints`` are those of its first page."""
        last = self.pieces[-1].piece
        return WalFile(
            name=self.segment.name,
            kind=FileKind.SEGMENT,
            system_identifier=last.system_identifier,
            timeline=self.segment.timeline,
            size_bytes=self.end_offset,
            sha256=last.through_sha256,
            spooled_at=max(one.piece.flushed_at for one in self.pieces),
            wal_segment_size=self.wal_segment_size,
            server_major=last.server_major,
            start_lsn=self.segment.start_lsn(self.wal_segment_size),
            end_lsn=self.end_lsn,
            commit_times=self.commit_times,
            first_commit_at=self.first_commit_at,
            last_commit_at=self.last_commit_at,
            joints=joints,
        )


def join_pieces(pieces: Iterable[HeldPiece]) -> JoinedTail | None:
    """Join the pieces of one segment, of any stores; None where none begins at its start.

    They may overlap, repeat or lack some. A piece continues another where its digest of all content before it is the
    other's of all content up to its end: so what is joined is always the beginning of one history. Of several ways to
    the furthest end the one with the fewest pieces is taken.
    """
    held = sorted(pieces, key=lambda one: (one.begins, one.ends, one.store, one.object_key))
    by_begin: defaultdict[_Place, list[HeldPiece]] = defaultdict(list)
    for one in held:
        by_begin[one.begins].append(one)
    if not by_begin.get(_START):
        return None
    ways = _shortest_ways(by_begin)
    end, conflict = max(ways), None
    rivals = _conflicting(ways)
    if rivals:
        end = _agreed(by_begin, ways, rivals)
        first = min(rivals)[0]
        conflict = (
            f"pieces of '{held[0].piece.segment.name}' are of two histories: up to offset {first} they hold different "
            f"content, and they agree up to offset {end[0]}, where this tail ends"
        )
    chain: list[HeldPiece] = []
    place = end
    while (last := ways[place]) is not None:
        chain.insert(0, last)
        place = last.begins
    sample = held[0].piece
    return JoinedTail(sample.segment, sample.wal_segment_size, tuple(chain), end[0], conflict)


def _shortest_ways(by_begin: Mapping[_Place, Sequence[HeldPiece]]) -> dict[_Place, HeldPiece | None]:
    """Return each place that a chain from the start reaches, with the last piece of the shortest chain to it."""
    ways: dict[_Place, HeldPiece | None] = {_START: None}
    reached = [_START]
    for place in reached:  # it grows: nearest places first, by the number of pieces
        for one in by_begin.get(place, ()):
            if one.ends not in ways:
                ways[one.ends] = one
                reached.append(one.ends)
    return ways


def _conflicting(places: Iterable[_Place]) -> set[_Place]:
    """Return the places at whose offset there is another content too."""
    by_offset: defaultdict[int, set[_Place]] = defaultdict(set)
    for place in places:
        by_offset[place[0]].add(place)
    return {place for found in by_offset.values() if len(found) > 1 for place in found}


def _agreed(
    by_begin: Mapping[_Place, Sequence[HeldPiece]], places: Iterable[_Place], rivals: Iterable[_Place]
) -> _Place:
    """Return the furthest place from which pieces lead to each of the ``rivals``: all begin with its content."""
    before: defaultdict[_Place, set[_Place]] = defaultdict(set)
    for place in places:
        for one in by_begin.get(place, ()):
            before[one.ends].add(place)
    agreed: set[_Place] | None = None
    for rival in rivals:
        found = [rival]
        seen = {rival}
        for place in found:
            new = before[place] - seen
            seen |= new
            found += new
        agreed = seen if agreed is None else agreed & seen
    return max(agreed or {_START})


def pieces_by_segment(
    pieces: Iterable[HeldPiece], system_identifier: int, wal_segment_size: int
) -> dict[str, tuple[HeldPiece, ...]]:
    """Sort the pieces of one system identifier and segment size by their segments' names."""
    found: defaultdict[str, list[HeldPiece]] = defaultdict(list)
    for one in pieces:
        if (one.piece.system_identifier, one.piece.wal_segment_size) == (system_identifier, wal_segment_size):
            found[one.piece.segment.name].append(one)
    return {name: tuple(found[name]) for name in sorted(found)}


def begun_in_pieces(pieces: Mapping[str, Iterable[HeldPiece]], histories: Mapping[int, TimelineHistory]) -> set[int]:
    """Return the timelines of which pieces are there, and which a recovery can follow: their history file is known."""
    begun = {int(name[:8], 16) for name, held in pieces.items() if any(one.begins == _START for one in held)}
    return {timeline for timeline in begun if timeline == 1 or timeline in histories}


def join_tails(
    pieces: Mapping[str, Iterable[HeldPiece]], whole: Container[str], stores: Container[str]
) -> dict[int, dict[int, JoinedTail]]:
    """Return what the pieces on ``stores`` prove of the segments that are not among the ``whole`` ones."""
    found: dict[int, dict[int, JoinedTail]] = {}
    for name, held in pieces.items():
        tail = None if name in whole else join_pieces(one for one in held if one.store in stores)
        if tail is not None and tail.pieces:
            found.setdefault(tail.segment.timeline, {})[tail.number] = tail
    return found


def join_runs(
    runs: Iterable[tuple[int, int]], tails: Mapping[int, JoinedTail], breaks: Container[int]
) -> list[tuple[int, int]]:
    """Join runs of whole segments with the segments that are there in pieces, except before each of ``breaks``.

    A segment that is not finished ends its run.
    """
    unfinished = {number for number, tail in tails.items() if not tail.is_whole}
    found: list[tuple[int, int]] = []
    for first, last in sorted([*runs, *((number, number) for number in tails if number not in unfinished)]):
        if found and first <= found[-1][1] + 1 and first not in breaks:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    found = [(first, last + 1 if last + 1 in unfinished else last) for first, last in found]
    ends = {last for _, last in found}
    return sorted([*found, *((number, number) for number in unfinished if number not in ends)])
