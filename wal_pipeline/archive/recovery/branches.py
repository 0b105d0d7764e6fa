"""Finds the timelines that go on past the place where another one left them: two servers that archive side by side."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.archive.recovery.coverage import ArchiveContents, Coverage
from wal_pipeline.archive.recovery.timeline_path import Run, TimelinePath
from wal_pipeline.text import moment_utc
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import history_name

STILL_ACTIVE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Branch:
    """WAL of ``timeline`` past ``left_at_lsn``, where the path to ``chosen`` left it.

    ``last_at`` is the time of its last commit there or, where commit times are not known, when its last segment came;
    ``chosen_at`` that of the chosen path. ``goes_on``: it has commits after the chosen timeline began, so the two
    were in use side by side. A failover whose old server ended before has none.
    """

    timeline: int
    chosen: int
    left_at_lsn: Lsn
    left_number: int
    last_segment: str
    last_at: datetime | None
    chosen_at: datetime | None
    began_at: datetime | None

    @property
    def goes_on(self) -> bool:
        """Whether it has commits after the chosen timeline began; not where nobody knows when that was."""
        return self.last_at is not None and self.began_at is not None and self.last_at > self.began_at

    @property
    def is_live(self) -> bool:
        """Whether it is as young as the chosen timeline, as far as the archive tells: nobody knows which is meant."""
        return self.goes_on and (
            self.chosen_at is None or (self.last_at is not None and self.last_at > self.chosen_at - STILL_ACTIVE)
        )

    @property
    def has_outlived(self) -> bool:
        """Whether it is written to long after the chosen timeline's last commit."""
        ended_at = self.chosen_at or self.began_at
        if ended_at is None or self.last_at is None:
            return False
        return self.goes_on and self.last_at > ended_at + STILL_ACTIVE

    def describe(self) -> str:
        """Say where both ends are."""
        ended = "" if self.last_at is None else f" until {moment_utc(self.last_at)}"
        chosen = "no commit" if self.chosen_at is None else f"commits until {moment_utc(self.chosen_at)}"
        return (
            f"timeline {self.timeline} goes on{ended} ('{self.last_segment}') past {self.left_at_lsn}, where "
            f"it parts from timeline {self.chosen}, which has {chosen}"
        )


def branches_beside(coverage: Coverage, path: TimelinePath) -> tuple[Branch, ...]:
    """Return the timelines with commits past the place where ``path`` left them, by timeline."""
    found = []
    paths = coverage.contents.paths
    for timeline in sorted({*coverage.numbers, *(one for one in coverage.tails if one in paths)}):
        other = paths[timeline]
        left = other.leaves(path) if timeline not in (path.timeline,) else None
        if left is not None and left[1] > 0:
            branch = _branch(coverage, path, other, left)
            found += [] if branch is None else [branch]
    return tuple(found)


def branches_of(contents: ArchiveContents) -> tuple[Branch, ...]:
    """Return the timelines that went on beside the newest one, on any store, by timeline."""
    if contents.main is None:
        return ()
    beside = branches_beside(Coverage.of(contents, contents.stores), contents.main)
    return tuple(branch for branch in beside if branch.goes_on)


def living_notes(branches: Iterable[Branch]) -> tuple[str, ...]:
    """Say where both ends are of timelines that are written to side by side."""
    return tuple(f"{branch.describe()}: two servers archive side by side" for branch in branches if branch.is_live)


def _branch(coverage: Coverage, path: TimelinePath, other: TimelinePath, left: tuple[int, Lsn]) -> Branch | None:
    contents, (number, lsn) = coverage.contents, left
    tails = coverage.tails.get(other.timeline, {})
    first, last = max(number, other.stretches[-1].first), max([*coverage.numbers.get(other.timeline, [])[-1:], *tails])
    if last < first or (last == number and last in tails and tails[last].end_lsn <= lsn):
        return None
    chosen = _leaving(path, lsn)
    end = max((run[1] for run in coverage.reached_on(path)), default=-1)
    began_at = _began_at(contents, path, chosen, (number, end))
    chosen_at = contents.last_commit(path, (number, end))[0] if end >= number else None
    if chosen_at is not None and began_at is not None and chosen_at < began_at:
        chosen_at = None  # of the parent: the segment of the switch begins with a copy of it
    return Branch(
        timeline=other.timeline,
        chosen=chosen,
        left_at_lsn=lsn,
        left_number=number,
        last_segment=other.name(last),
        last_at=_last_at(contents, other, (first, last)),
        chosen_at=chosen_at,
        began_at=began_at,
    )


def _leaving(path: TimelinePath, lsn: Lsn) -> int:
    """Return the first timeline of a path that begins at ``lsn`` or later: the one that left."""
    ends = [stretch.end_lsn for stretch in path.stretches]
    index = next((index for index, end in enumerate(ends) if end >= lsn), len(ends) - 1)
    follows = path.stretches[index].end_lsn == lsn and index + 1 < len(ends)
    return path.stretches[index + 1 if follows else index].timeline


def _began_at(contents: ArchiveContents, path: TimelinePath, timeline: int, run: Run) -> datetime | None:
    """Return when a timeline began: when its history file came or, without it, the first commit after it in a run.

    The run's first segment is left out: it begins with a copy of the parent's.
    """
    history = contents.files.get(history_name(timeline).name)
    if history is not None:
        return history.spooled_at
    return contents.first_commit(path, (run[0] + 1, run[1]))


def _last_at(contents: ArchiveContents, path: TimelinePath, run: tuple[int, int]) -> datetime | None:
    at, known = contents.last_commit(path, run)
    if known:
        return at
    last = contents.segments.get(path.timeline, {}).get(run[1])
    came_at = None if last is None else last.spooled_at
    return max((one for one in (at, came_at) if one is not None), default=None)
