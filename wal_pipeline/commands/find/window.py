"""Chooses the segments and pieces of the archive that hold the commits between two moments."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.archive.recovery.branches import branches_beside
from wal_pipeline.archive.recovery.coverage import Coverage
from wal_pipeline.archive.recovery.timeline_path import Run, TimelinePath
from wal_pipeline.commands.find.options import DEFAULT_SPAN, FindRequest
from wal_pipeline.commands.restore.contents import RestoreInventory
from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline.text import counted, moment_utc
from wal_pipeline.wal.names import WalFileName, require_file_name

MOST_LOOKED_BACK: Final = 16  # segments before a search's first one, for transactions that began earlier


class FindWindowError(RecoveryTargetError):
    """There is no WAL between the two moments."""

    is_refusal = True


@dataclass(frozen=True, slots=True)
class WalPart:
    """One segment to read, or the beginning of one that is there in pieces.

    ``end_offset`` is then up to where, None for all of it. ``hole`` says which WAL is missing just before it.
    ``is_early``: it is read for transactions that began before the window alone.
    """

    name: WalFileName
    is_tail: bool = False
    end_offset: int | None = None
    hole: str | None = None
    is_early: bool = False


@dataclass(frozen=True, slots=True)
class FindWindow:
    """The WAL of a search: from segment ``first`` of one of the ``runs`` on, as far as the reader wants to go.

    ``begins_run``: the archive has nothing just before it. ``before_at`` is the last commit before that hole.
    """

    coverage: Coverage
    path: TimelinePath
    runs: tuple[Run, ...]
    first: int
    begin_at: datetime
    end_at: datetime | None
    before_at: datetime | None
    notes: tuple[str, ...]

    @property
    def begins_run(self) -> bool:
        """Whether nothing is archived just before the first segment."""
        return any(run[0] == self.first for run in self.runs)

    def parts(self) -> Iterator[WalPart]:
        """Yield the parts in the order of the WAL, from the first one on."""
        before: int | None = None
        for begin, last in self.runs:
            if last < self.first:
                before = last
                continue
            for number in range(max(begin, self.first), last + 1):
                hole = self._hole(before, begin) if number == begin and before is not None else None
                yield self._part(number, hole=hole)
            before = last

    def earlier(self) -> Iterator[WalPart]:
        """Yield the segments before the first one, backwards, a few of them."""
        begin = next((run[0] for run in self.runs if run[0] <= self.first <= run[1]), self.first)
        for number in range(self.first - 1, max(begin, self.first - MOST_LOOKED_BACK) - 1, -1):
            yield self._part(number, is_early=True)

    def estimated_bytes(self) -> int:
        """Return about how many bytes there are to read, by what the objects say of their commits."""
        size = self.path.wal_segment_size
        total = 0
        for begin, last in self.runs:
            for _, file in self.coverage.contents.along(self.path, (max(begin, self.first), last)):
                at = None if file is None else file.first_commit_at
                if self.end_at is not None and at is not None and at > self.end_at:
                    return total
                total += size
        return total

    def _part(self, number: int, *, hole: str | None = None, is_early: bool = False) -> WalPart:
        tail = self.coverage.tail_at(self.path, number)
        end_offset = None if tail is None else tail.end_offset
        return WalPart(require_file_name(self.path.name(number)), tail is not None, end_offset, hole, is_early)

    def _hole(self, before: int, begin: int) -> str:
        first, last = self.path.name(before + 1), self.path.name(begin - 1)
        if begin == before + 1:
            name = self.path.name(begin)
            reason = self.coverage.contents.breaks.get(name, "what follows it is not archived")
            return f"the WAL before '{name}' cannot be joined with it: {reason}"
        missing = f"'{first}'" if first == last else f"'{first}' to '{last}'"
        return f"{counted(begin - before - 1, 'segment')} missing: {missing}"


def choose_window(inventory: RestoreInventory, request: FindRequest, now: datetime) -> FindWindow:
    """Choose where a search begins. Raises: FindWindowError, which names the nearest commits."""
    contents = inventory.contents
    coverage = Coverage.of(contents, contents.stores)
    path = _path(coverage, request.timeline)
    runs = coverage.reached_on(path)
    if not runs:
        raise FindWindowError(
            f"no WAL of timeline {path.timeline} is archived", hint="'wal-pipeline status' says what is."
        )
    end_at = request.end_at
    last_at, _ = contents_last(coverage, path, runs)
    begin_at = request.begin_at or (end_at or last_at or now) - DEFAULT_SPAN
    for run in runs:
        for timeline, part in path.parts(run):
            inventory.records.first_after(timeline, part, begin_at)
    files = inventory.records.files()
    coverage = Coverage.of(contents.with_files([*contents.files.values(), *files]), contents.stores)
    for index, run in enumerate(runs):
        for timeline, part in path.parts(run):
            first = inventory.records.first_after(timeline, part, begin_at)
            if first <= part[1]:
                before_at = contents_last(coverage, path, runs[:index])[0] if first == run[0] else None
                notes = (*_unknown_notes(coverage, path, first), *_branch_notes(coverage, path))
                return FindWindow(coverage, path, tuple(runs), first, begin_at, end_at, before_at, notes)
    nearest = "" if last_at is None else f": the last commit that is archived is of {moment_utc(last_at)}"
    raise FindWindowError(
        f"no commit since {begin_at.isoformat(' ')} is archived{nearest}",
        hint="Give an earlier --from, or wait until newer WAL is archived ('wal-pipeline status').",
    )


def contents_last(coverage: Coverage, path: TimelinePath, runs: list[Run]) -> tuple[datetime | None, bool]:
    """Return the time of the last commit in some runs, and whether it is certainly the last."""
    for run in reversed(runs):
        at, known = coverage.contents.last_commit(path, run)
        if at is not None:
            return at, known
    return None, False


def _path(coverage: Coverage, timeline: int | None) -> TimelinePath:
    contents = coverage.contents
    found = contents.main if timeline is None else contents.paths.get(timeline)
    if found is not None:
        return found
    known = ", ".join(str(one) for one in sorted(contents.paths))
    if timeline is None:
        raise FindWindowError("no WAL is archived", hint="Check the cluster's name, the prefix and the buckets.")
    raise FindWindowError(f"no WAL of timeline {timeline} is archived", hint=f"The archive has timeline {known}.")


def _unknown_notes(coverage: Coverage, path: TimelinePath, first: int) -> Iterator[str]:
    """Say that a search begins early, where nothing tells which segment has its first commit."""
    file = next((file for _, file in coverage.contents.along(path, (first, first))), None)
    if coverage.tail_at(path, first) is None and (file is None or file.commit_times is not CommitTimes.KNOWN):
        yield f"the commit times of '{path.name(first)}' are not known: the search begins there, perhaps early"


def _branch_notes(coverage: Coverage, path: TimelinePath) -> Iterator[str]:
    for branch in branches_beside(coverage, path):
        if branch.goes_on:
            yield f"{branch.describe()}: it is not searched; --timeline chooses it"
