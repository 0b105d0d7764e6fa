"""Follows the path to a timeline, and finds the file that holds each segment number on it."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.wal.lsn import MAX_LSN, Lsn
from wal_pipeline.wal.names import segment_name
from wal_pipeline.wal.timeline import TimelineHistory

LAST_NUMBER: Final = MAX_LSN  # no segment has a greater number

Run = tuple[int, int]  # the first and the last of consecutive segment numbers


@dataclass(frozen=True, slots=True)
class TimelineStretch:
    """The segment numbers ``first`` to ``last`` that lie on ``timeline``; a stretch may be empty (``first > last``).

    ``end_lsn`` is where the path leaves the timeline. The segment with that LSN belongs to the next timeline, which
    begins with a copy of its parent's segment up to the switch.
    """

    timeline: int
    first: int
    last: int
    end_lsn: Lsn


@dataclass(frozen=True, slots=True)
class TimelinePath:
    """The path from the first known timeline to ``timeline``, as PostgreSQL follows it (XLogFileReadAnyTLI).

    Each number has one file: that of the newest timeline that has begun there.
    """

    timeline: int
    wal_segment_size: int
    stretches: tuple[TimelineStretch, ...]

    @property
    def timelines(self) -> tuple[int, ...]:
        """The timelines in order, the oldest first."""
        return tuple(stretch.timeline for stretch in self.stretches)

    def owner(self, number: int) -> int:
        """Return the timeline whose file holds the segment ``number`` on this path."""
        owned = [stretch for stretch in self.stretches if stretch.first <= stretch.last]
        index = bisect_right(owned, number, key=lambda stretch: stretch.first) - 1
        return owned[index].timeline

    def name(self, number: int) -> str:
        """Return the name of the file that holds the segment ``number``."""
        return segment_name(self.owner(number), number, self.wal_segment_size).name

    def parts(self, run: Run) -> Iterator[tuple[int, Run]]:
        """Yield the timelines of a run of numbers, each with its part of the run, in order."""
        for stretch in self.stretches:
            first, last = max(run[0], stretch.first), min(run[1], stretch.last)
            if first <= last:
                yield stretch.timeline, (first, last)

    def end_of(self, timeline: int) -> Lsn | None:
        """Return the LSN at which the path leaves a timeline; None for a timeline that is not on the path."""
        return next((stretch.end_lsn for stretch in self.stretches if stretch.timeline == timeline), None)

    def holds(self, backup: BaseBackup) -> bool:
        """Say whether a recovery from this base backup can follow the path: it stopped before the path left its WAL."""
        end = self.end_of(backup.timeline)
        return end is not None and backup.stop_lsn <= end

    def leaves(self, other: "TimelinePath") -> tuple[int, Lsn] | None:
        """Return the first segment number and the LSN at which the path leaves ``other``; None where it does not."""
        for mine, its in zip(self.stretches, other.stretches, strict=False):
            if mine.timeline != its.timeline:
                return min(mine.first, its.first), Lsn(0)
            if mine.end_lsn != its.end_lsn:
                end = min(mine.end_lsn, its.end_lsn)
                return end // self.wal_segment_size, end
        return None


def follow(history: TimelineHistory | None, timeline: int, wal_segment_size: int) -> TimelinePath:
    """Return the path to a timeline. Without its history the timeline stands alone, as timeline 1 does."""
    parts = (history or TimelineHistory(timeline)).ranges()
    begins = [(part.timeline, part.start // wal_segment_size, part.end) for part in parts]
    lasts = [begin - 1 for _, begin, _ in begins[1:]] + [LAST_NUMBER]
    stretches = (
        TimelineStretch(part, begin, last, Lsn(MAX_LSN) if end is None else end)
        for (part, begin, end), last in zip(begins, lasts, strict=True)
    )
    return TimelinePath(timeline, wal_segment_size, tuple(stretches))


def all_paths(
    timelines: Iterable[int], histories: Mapping[int, TimelineHistory], wal_segment_size: int
) -> dict[int, TimelinePath]:
    """Return the path to each of the timelines, and to each timeline that a history names, by timeline."""
    known = set(timelines) | set(histories)
    known |= {switch.parent for history in histories.values() for switch in history.switches}
    return {timeline: follow(histories.get(timeline), timeline, wal_segment_size) for timeline in sorted(known)}


def runs_of(numbers: Iterable[int]) -> list[Run]:
    """Join ascending numbers to runs without a hole."""
    runs: list[Run] = []
    first = last = -1
    for number in numbers:
        if number != last + 1 or first < 0:
            if first >= 0:
                runs.append((first, last))
            first = number
        last = number
    return [*runs, (first, last)] if first >= 0 else runs
