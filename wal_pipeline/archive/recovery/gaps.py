"""Finds gaps, which are missing segments, and keeps a ledger of each gap's state."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from wal_pipeline.archive.recovery.coverage import ArchiveContents, Coverage
from wal_pipeline.archive.recovery.timeline_path import Run, TimelinePath
from wal_pipeline.wal.lsn import MAX_LSN, Lsn
from wal_pipeline.wal.names import segment_name


class GapState(StrEnum):
    """Whether a gap needs a person."""

    OPEN = "open"  # a person must look at it
    ACKNOWLEDGED = "acknowledged"  # a person accepted it
    ON_ITS_WAY = "on_its_way"  # all its segments wait in the spool: later ones were stored before them
    CLOSED = "closed"  # a later base backup made it moot: only moments before that base backup need it


@dataclass(frozen=True, slots=True)
class Gap:
    """Segments of one timeline that are missing while later ones are there.

    ``store`` is None for any store. ``first_missing`` and ``last_missing`` are names, ``segments`` counts
    them, ``end_lsn`` is exclusive. ``held_elsewhere`` of them are on another store, and ``held_by`` names those stores:
    'wal-pipeline verify --repair' copies them from there.
    The moments between ``last_commit_before_at`` and ``first_commit_after_at`` (None: not known) cannot be restored.
    """

    store: str | None
    system_identifier: int
    timeline: int
    first_missing: str
    last_missing: str
    segments: int
    start_lsn: Lsn
    end_lsn: Lsn
    last_commit_before_at: datetime | None
    first_commit_after_at: datetime | None
    held_elsewhere: int
    held_by: tuple[str, ...] = ()

    def is_among(self, names: Collection[str]) -> bool:
        """Return whether each missing segment is among ``names``."""
        if self.segments > len(names):
            return False
        size = (self.end_lsn - self.start_lsn) // self.segments or 1
        size = 1 << (size - 1).bit_length()  # the very last segment of all ends one byte early
        begin = self.start_lsn // size
        wanted = (segment_name(self.timeline, number, size).name for number in range(begin, begin + self.segments))
        return all(name in names for name in wanted)


@dataclass(frozen=True, slots=True)
class Break:
    """A segment that is there and does not continue the one before it: no recovery passes into it.

    ``reason`` says what shows it. ``closed_by`` is the first later base backup that can be restored without it.
    """

    segment: str
    reason: str
    closed_by: str | None


class GapAcceptance(Protocol):
    """The catalog's record that a person accepted a gap. It counts on every store."""

    @property
    def system_identifier(self) -> int: ...
    @property
    def timeline(self) -> int: ...
    @property
    def first_missing(self) -> str: ...
    @property
    def last_missing(self) -> str: ...
    @property
    def acknowledged_by(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def acknowledged_at(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A gap with its state. ``closed_by`` is the first later base backup that can be restored without the gap."""

    gap: Gap
    state: GapState
    acceptance: GapAcceptance | None
    closed_by: str | None


@dataclass(frozen=True, slots=True)
class _Hole:
    """A gap by numbers, with the commit times around it."""

    run: Run
    before_at: datetime | None
    after_at: datetime | None


def find_gaps(contents: ArchiveContents, stores: Iterable[str] | None = None) -> tuple[Gap, ...]:
    """Return the gaps of the ``stores`` taken together (by default of any store), by timeline and position.

    Segments missing before the start of the oldest base backup are no gap: nothing needs them. On a path without a base
    backup each hole between segments is a gap. Segments missing at the end are late, not lost, and no gap.
    """
    chosen = contents.stores if stores is None else tuple(stores)
    coverage = Coverage.of(contents, chosen)
    store = chosen[0] if stores is not None and len(chosen) == 1 else None
    found: dict[int, list[_Hole]] = {}
    for path in contents.paths.values():
        for timeline, hole in _holes(coverage, path):
            found.setdefault(timeline, []).append(hole)
    everywhere = Coverage.of(contents, contents.stores) if found else coverage
    return tuple(
        _gap(contents, store, timeline, hole, everywhere)
        for timeline in sorted(found)
        for hole in _united(found[timeline])
    )


def find_breaks(contents: ArchiveContents) -> tuple[Break, ...]:
    """Return the segments on any store that continue nothing, by name."""
    coverage = Coverage.of(contents, contents.stores)
    held = [name for name in sorted(contents.breaks) if coverage.has(name)]
    size = contents.wal_segment_size
    return tuple(
        Break(name, contents.breaks[name], _later_backup(coverage, int(name[:8], 16), number, Lsn(number * size)))
        for name, number in ((name, contents.number(name)) for name in held)
    )


def gap_ledger(
    contents: ArchiveContents, gaps: Iterable[Gap], acceptances: Iterable[GapAcceptance] = ()
) -> tuple[LedgerEntry, ...]:
    """Return each gap with its state.

    An acceptance counts for a gap that lies wholly within the accepted segments: a gap that grew is open again.
    """
    accepted = list(acceptances)
    coverages: dict[str | None, Coverage] = {}
    entries = []
    for gap in gaps:
        if gap.store not in coverages:
            coverages[gap.store] = Coverage.of(contents, contents.stores if gap.store is None else (gap.store,))
        acceptance = next((one for one in accepted if _accepts(one, gap)), None)
        closed_by = _closed_by(coverages[gap.store], gap)
        state = GapState.CLOSED if closed_by else GapState.ACKNOWLEDGED if acceptance else GapState.OPEN
        entries.append(LedgerEntry(gap, state, acceptance, closed_by))
    return tuple(entries)


def _holes(coverage: Coverage, path: TimelinePath) -> Iterator[tuple[int, _Hole]]:
    runs = coverage.runs_on(path)
    backups = coverage.held(path)
    if not runs:
        return
    start = min((b.start_lsn // b.wal_segment_size for b in backups), default=runs[0][0])
    lasts = [start - 1, *(run[1] for run in runs)]
    for before, after in zip(lasts, runs, strict=False):
        hole = max(before + 1, start), after[0] - 1
        if hole[0] <= hole[1]:
            before_at = coverage.contents.last_commit(path, (max(start, runs[0][0]), hole[0] - 1))[0]
            after_at = coverage.contents.first_commit(path, after)
            for timeline, part in path.parts(hole):
                yield timeline, _Hole(part, before_at, after_at)


def _united(holes: list[_Hole]) -> list[_Hole]:
    """Join the holes of one timeline that overlap: two paths may leave the timeline at different places in one gap."""
    joined: list[_Hole] = []
    for hole in sorted(holes, key=lambda hole: hole.run):
        if joined and hole.run[0] <= joined[-1].run[1] + 1:
            last = joined[-1]
            if hole.run[1] > last.run[1]:
                joined[-1] = replace(last, run=(last.run[0], hole.run[1]), after_at=hole.after_at)
        else:
            joined.append(hole)
    return joined


def _gap(contents: ArchiveContents, store: str | None, timeline: int, hole: _Hole, everywhere: Coverage) -> Gap:
    (first, last), size = hole.run, contents.wal_segment_size
    return Gap(
        store=store,
        system_identifier=contents.system_identifier,
        timeline=timeline,
        first_missing=segment_name(timeline, first, size).name,
        last_missing=segment_name(timeline, last, size).name,
        segments=last - first + 1,
        start_lsn=Lsn(first * size),
        end_lsn=Lsn(min((last + 1) * size, MAX_LSN)),
        last_commit_before_at=hole.before_at,
        first_commit_after_at=hole.after_at,
        held_elsewhere=everywhere.count(timeline, hole.run),
        held_by=tuple(one for one in contents.stores if Coverage.of(contents, [one]).count(timeline, hole.run)),
    )


def _accepts(acceptance: GapAcceptance, gap: Gap) -> bool:
    return (
        acceptance.system_identifier == gap.system_identifier
        and acceptance.timeline == gap.timeline
        and acceptance.first_missing <= gap.first_missing
        and gap.last_missing <= acceptance.last_missing
    )


def _closed_by(coverage: Coverage, gap: Gap) -> str | None:
    number = gap.start_lsn // coverage.contents.wal_segment_size
    return _later_backup(coverage, gap.timeline, number, gap.end_lsn)


def _later_backup(coverage: Coverage, timeline: int, number: int, lsn: Lsn) -> str | None:
    """Return the first base backup that begins at ``lsn`` or later, on a path through a timeline's segment."""
    for path in coverage.contents.paths.values():
        if path.owner(number) == timeline:
            later = (backup for backup, _ in coverage.restorable(path) if backup.start_lsn >= lsn)
            backup = next(later, None)
            if backup is not None:
                return backup.backup_id
    return None
