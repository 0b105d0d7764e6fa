"""Works out the moment to which a recovery window reaches, and the age of the oldest commit that it lacks. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.tail import JoinedTail, join_pieces
from wal_pipeline.archive.recovery.window import RecoveryWindow
from wal_pipeline.wal.lsn import Lsn

CLOCK_TOLERANCE: Final = timedelta(hours=1)  # between the server's clock and this host's
_MOST_RECORDS: Final = 4096  # an idle server's segments, which hold no commit


@dataclass(frozen=True, slots=True)
class CommitsBeyond:
    """The commits in the WAL that follows a window's end, as far as they are known.

    ``first_commit_at`` is the time of the first one. None: the WAL up to ``read_to`` was read, and holds none.
    """

    first_commit_at: datetime | None
    read_to: Lsn


@dataclass(frozen=True, slots=True)
class WrittenEnd:
    """The end of the WAL that the server has written on the window's timeline, and when it said so (its clock)."""

    lsn: Lsn
    at: datetime


@dataclass(frozen=True, slots=True)
class RecoveryReach:
    """The moment to which a window reaches: everything that was committed before ``at`` can be recovered.

    It is not the last commit: while a server commits nothing, a window whose WAL is all archived reaches to now.
    ``is_at_least``: it may reach further, and ``unknown`` says why that is not known.

    ``rpo_seconds`` is the age of the oldest commit that the window lacks, 0 where it lacks none: what would be lost if
    the server were lost now. With ``rpo_is_bound`` it is at most that. None where not even that is known.
    ``last_commit_age_seconds`` is the age of the last commit in the window, None where none is known.
    """

    at: datetime
    is_at_least: bool
    rpo_seconds: float | None
    rpo_is_bound: bool
    last_commit_age_seconds: float | None
    unknown: str | None = None

    @property
    def lacks_nothing(self) -> bool:
        """Whether it is proven that nothing was committed since."""
        return self.rpo_seconds == 0 and not self.rpo_is_bound


def is_ahead(at: datetime, now: datetime) -> bool:
    """Return whether a moment lies so far in the future that a clock must be wrong."""
    return at > now + CLOCK_TOLERANCE


def recorded_beyond(contents: ArchiveContents, window: RecoveryWindow) -> CommitsBeyond:
    """Return the commits beyond a window by the records of the next segments, on whichever store or in the spool."""
    size = contents.wal_segment_size
    path = contents.paths[window.timeline]
    number = begin = window.latest_lsn // size
    if window.tail is not None and not window.tail.is_whole:
        rest = _rest_of_segment(contents, window.tail)
        if rest.first_commit_at is not None or rest.read_to < window.tail.segment.end_lsn(size):
            return rest
        number = begin = begin + 1
    while number < begin + _MOST_RECORDS:
        file = contents.segments.get(path.owner(number), {}).get(number)
        if file is None or file.commit_times is not CommitTimes.KNOWN or file.name in contents.breaks:
            break
        if file.first_commit_at is not None:
            return CommitsBeyond(file.first_commit_at, Lsn(number * size))
        number += 1
    return CommitsBeyond(None, Lsn(max(window.latest_lsn, number * size)))


def _rest_of_segment(contents: ArchiveContents, tail: JoinedTail) -> CommitsBeyond:
    """Return the commits of a segment after a tail, by its record or by the pieces that continue it elsewhere."""
    file = contents.segments.get(tail.segment.timeline, {}).get(tail.number)
    known = file is not None and CommitTimes.KNOWN is file.commit_times is tail.commit_times
    if file is not None and known and file.last_commit_at == tail.last_commit_at:
        return CommitsBeyond(None, tail.segment.end_lsn(tail.wal_segment_size))
    longest = join_pieces(contents.tails.get(tail.segment.name, ()))
    read_to, after = tail.end_lsn, tail.pieces[-1].ends
    for one in () if longest is None else longest.pieces:
        if one.begins != after or one.piece.commit_times is not CommitTimes.KNOWN:
            continue
        if one.piece.first_commit_at is not None:
            return CommitsBeyond(one.piece.first_commit_at, one.piece.start_lsn)
        read_to, after = one.piece.end_lsn, one.ends
    return CommitsBeyond(None, read_to)


def reach_of(
    window: RecoveryWindow, beyond: CommitsBeyond, end: WrittenEnd | None, now: datetime, *, unknown: str | None = None
) -> RecoveryReach:
    """Return how far a window reaches.

    ``end`` is None where the server could not be asked, or is not the one whose WAL continues the window; ``unknown``
    says why.
    """
    last_at = window.latest_commit_at_least
    age = None if last_at is None else _age(last_at, now)
    if beyond.first_commit_at is not None:
        at = max(beyond.first_commit_at, window.earliest_at)
        return RecoveryReach(at, False, _age(beyond.first_commit_at, now), False, age)
    if end is not None and end.lsn <= beyond.read_to:
        return RecoveryReach(max(end.at, window.reaches_at_least), False, 0.0, False, age)
    said = unknown or f"the WAL from {beyond.read_to} on, which is not archived, could not be read for commits"
    if is_ahead(window.reaches_at_least, now):
        said = "the last base backup or commit is dated in the future: a clock is or was wrong"
        return RecoveryReach(window.reaches_at_least, True, None, False, age, said)
    return RecoveryReach(window.reaches_at_least, True, _age(window.reaches_at_least, now), True, age, said)


def _age(at: datetime, now: datetime) -> float:
    return max(0.0, (now - at).total_seconds())
