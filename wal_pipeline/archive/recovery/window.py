"""Computes the recovery windows, the spans of moments that can be restored, for each store and for any store."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.archive.recovery.coverage import ArchiveContents, Coverage
from wal_pipeline.archive.recovery.tail import JoinedTail
from wal_pipeline.archive.recovery.timeline_path import Run, TimelinePath
from wal_pipeline.wal.lsn import MAX_LSN, Lsn


class WindowEnd(StrEnum):
    """Why a recovery window ends."""

    GAP = "gap"  # a segment is missing before later ones
    BREAK = "break"  # the next segment is there, but does not continue the last one: see ``ArchiveContents.breaks``
    END = "end"  # nothing later is there


@dataclass(frozen=True, slots=True)
class RecoveryWindow:
    """One span of moments that can be restored along the path to ``timeline``.

    ``store`` is None for any store: their copies taken together. ``timelines`` are those that replay follows.
    ``backup_ids`` are the base backups to begin from, in WAL order; the first becomes consistent at ``earliest_at`` and
    ``earliest_lsn``. Any later time up to ``latest_commit_at`` can be the target.

    ``latest_commit_at`` is the time of the last commit, None where it is not known or where there is no commit
    (``commit_times_known`` says which); ``latest_commit_at_least`` is then the last commit that is known.
    ``reaches_at_least`` is the later of that commit and the end of the newest base backup: the window certainly reaches
    so far, and mostly further (see ``reach.py``).

    ``latest_lsn`` is the end of ``last_segment`` or, where no store has that whole, of what pieces prove of it: the
    ``tail``. ``tails`` are all segments of the window that are there in pieces alone. ``first_missing`` names the first
    missing segment of the gap that ends the window, or the segment that continues nothing. ``left_at_lsn`` is where an
    abandoned branch left the path to the newest timeline, else None.
    """

    store: str | None
    system_identifier: int
    timeline: int
    timelines: tuple[int, ...]
    backup_ids: tuple[str, ...]
    earliest_at: datetime
    earliest_lsn: Lsn
    latest_commit_at: datetime | None
    latest_commit_at_least: datetime | None
    commit_times_known: bool
    reaches_at_least: datetime
    latest_lsn: Lsn
    first_segment: str
    last_segment: str
    segments: int
    ended_by: WindowEnd
    first_missing: str | None
    left_at_lsn: Lsn | None
    tails: tuple[JoinedTail, ...] = ()

    @property
    def tail(self) -> JoinedTail | None:
        """The pieces with which it ends; None where it ends with a whole segment."""
        return self.tails[-1] if self.tails and self.tails[-1].segment.name == self.last_segment else None


@dataclass(frozen=True, slots=True)
class Span:
    """A recovery window by numbers: the run of segments on a path from its first base backup's start.

    ``first_missing`` is the first segment of the gap after it, or the one that continues nothing; None where nothing
    later is there on the path.
    """

    path: TimelinePath
    run: Run
    backups: tuple[BaseBackup, ...]
    first_missing: str | None
    tails: tuple[JoinedTail, ...] = ()

    @property
    def tail(self) -> JoinedTail | None:
        """The pieces with which it ends; None where it ends with a whole segment."""
        return self.tails[-1] if self.tails and self.tails[-1].number == self.run[1] else None

    @property
    def end_lsn(self) -> Lsn:
        """The first LSN after it."""
        tail = self.tail
        return tail.end_lsn if tail is not None else Lsn(min((self.run[1] + 1) * self.path.wal_segment_size, MAX_LSN))

    @property
    def size_bytes(self) -> int:
        """The bytes of its WAL."""
        return self.end_lsn - self.run[0] * self.path.wal_segment_size

    def is_before(self, left: tuple[int, Lsn]) -> bool:
        """Say whether it ends before the segment, or at the latest at the LSN, at which two paths part."""
        return self.run[1] < left[0] or (self.run[1] == left[0] and self.tail is not None and self.end_lsn <= left[1])

    @property
    def timeline(self) -> int:
        """The timeline that holds the last segment."""
        return self.path.owner(self.run[1])

    def reaches_at_least(self, last_commit_at: datetime | None) -> datetime:
        """Return the last moment that it surely holds: its last commit, or the end of a base backup or of pieces."""
        ends = [one.finished_at for one in self.backups]
        ends += [tail.flushed_at for tail in self.tails[-1:] if tail.flushed_at is not None]
        return max(ends if last_commit_at is None else [*ends, last_commit_at])


def spans_on(coverage: Coverage, path: TimelinePath) -> list[Span]:
    """Return the windows on one path by numbers, the oldest first."""
    by_run: dict[Run, list[BaseBackup]] = {}
    for backup, run in coverage.restorable(path):
        by_run.setdefault(run, []).append(backup)
    last = max((run[1] for run in coverage.runs_on(path)), default=-1)
    return [
        _span(coverage, path, (_first_number(backups), run[1]), tuple(backups), last)
        for run, backups in sorted(by_run.items())
    ]


def _span(coverage: Coverage, path: TimelinePath, run: Run, backups: tuple[BaseBackup, ...], last: int) -> Span:
    """Return the window from a run; ``last`` is the last segment on the path that is there, before or after a gap."""
    tails = coverage.tails_in(path, run)
    is_open = bool(tails) and tails[-1].number == run[1] and not tails[-1].is_whole
    missing = run[1] if is_open else run[1] + 1
    is_missing = missing <= last or _is_refused(coverage, path, missing)
    return Span(path, run, backups, path.name(missing) if is_missing else None, tails)


def _is_refused(coverage: Coverage, path: TimelinePath, number: int) -> bool:
    """Say whether a segment behind the last one may not be replayed: its pieces, or its copies that are all damaged."""
    name, contents = path.name(number), coverage.contents
    if name not in contents.breaks:
        return False
    is_on_none = name not in contents.tails and not any(name in names for names in contents.copies.values())
    return is_on_none or number in coverage.tails.get(path.owner(number), {})


def recovery_windows(contents: ArchiveContents, stores: Iterable[str] | None = None) -> tuple[RecoveryWindow, ...]:
    """Return the recovery windows of the ``stores`` taken together; by default of any store.

    Ordered by timeline and position. A window that is wholly part of another one is not listed.
    """
    chosen = contents.stores if stores is None else tuple(stores)
    coverage = Coverage.of(contents, chosen)
    store = chosen[0] if stores is not None and len(chosen) == 1 else None
    spans = [span for path in contents.paths.values() for span in spans_on(coverage, path)]
    return tuple(window_of(coverage.contents, store, span) for span in _distinct(spans))


def windows_by_store(contents: ArchiveContents) -> dict[str | None, tuple[RecoveryWindow, ...]]:
    """Return the recovery windows of each store alone, and under None those of any store."""
    windows: dict[str | None, tuple[RecoveryWindow, ...]] = {None: recovery_windows(contents)}
    return windows | {store: recovery_windows(contents, [store]) for store in contents.stores}


def _distinct(spans: list[Span]) -> list[Span]:
    """Drop each span that is part of a longer one; of equal spans keep that of the timeline on which they end."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (-s.size_bytes, s.timeline != s.path.timeline, s.path.timeline)):
        whole = next((index for index, other in enumerate(kept) if _is_part(span, other)), None)
        if whole is None:
            kept.append(span)
        elif kept[whole].first_missing is None and kept[whole].run[1] == span.run[1]:
            # the parent ends here, but its child continues after a gap
            kept[whole] = replace(kept[whole], first_missing=span.first_missing)
    return sorted(kept, key=lambda span: (span.path.timeline, span.run))


def _is_part(span: Span, other: Span) -> bool:
    left = span.path.leaves(other.path)
    return other.run[0] <= span.run[0] and span.run[1] <= other.run[1] and (left is None or span.is_before(left))


def _first_number(backups: list[BaseBackup]) -> int:
    return min(backup.start_lsn // backup.wal_segment_size for backup in backups)


def window_of(contents: ArchiveContents, store: str | None, span: Span) -> RecoveryWindow:
    """Return a span as a recovery window of ``store`` (None: any store)."""
    path, (first, last) = span.path, span.run
    last_commit_at, known = contents.last_commit(path, span.run)
    earliest = span.backups[0]
    return RecoveryWindow(
        store=store,
        system_identifier=contents.system_identifier,
        timeline=path.timeline,
        timelines=tuple(timeline for timeline, _ in path.parts(span.run)),
        backup_ids=tuple(backup.backup_id for backup in span.backups),
        earliest_at=earliest.finished_at,
        earliest_lsn=earliest.stop_lsn,
        latest_commit_at=last_commit_at if known else None,
        latest_commit_at_least=last_commit_at,
        commit_times_known=known,
        reaches_at_least=span.reaches_at_least(last_commit_at),
        latest_lsn=span.end_lsn,
        first_segment=path.name(first),
        last_segment=path.name(last),
        segments=last - first + 1,
        ended_by=end_of(contents, span),
        first_missing=span.first_missing,
        left_at_lsn=_left_at(contents, span),
        tails=span.tails,
    )


def end_of(contents: ArchiveContents, span: Span) -> WindowEnd:
    """Say why a span ends."""
    if span.first_missing is None:
        return WindowEnd.END
    return WindowEnd.BREAK if span.first_missing in contents.breaks else WindowEnd.GAP


def _left_at(contents: ArchiveContents, span: Span) -> Lsn | None:
    left = None if contents.main is None else span.path.leaves(contents.main)
    return left[1] if left is not None and not span.is_before(left) else None
