"""Indexes one cluster's archive by segment number: presence, commit times and restorable base backups."""

from bisect import bisect_left, bisect_right
from collections import ChainMap, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Self, cast

from wal_pipeline.archive.records import BaseBackup, CommitTimes, WalFile
from wal_pipeline.archive.recovery.continuity import breaks_among, split_runs
from wal_pipeline.archive.recovery.tail import (
    HeldPiece,
    JoinedTail,
    Tails,
    begun_in_pieces,
    join_runs,
    join_tails,
    pieces_by_segment,
)
from wal_pipeline.archive.recovery.timeline_path import Run, TimelinePath, all_paths, runs_of
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, history_name
from wal_pipeline.wal.timeline import TimelineHistory

_SEGMENT_NAME_LENGTH: Final = 24


@dataclass(frozen=True, slots=True)
class HeldBackup:
    """A base backup, and the stores that hold all its objects with the manifest."""

    backup: BaseBackup
    stores: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Numbered:
    """File names, with the ascending numbers and the runs of the segments among them, by timeline."""

    names: frozenset[str]
    numbers: Mapping[int, list[int]]
    runs: Mapping[int, list[Run]]

    @classmethod
    def of(cls, names: frozenset[str], wal_segment_size: int) -> Self:
        """Number the segments among the names."""
        found = defaultdict[str, list[int]](list)
        per_log = (1 << 32) // wal_segment_size
        for name in names:
            if len(name) == _SEGMENT_NAME_LENGTH and "." not in name:  # inlined: this loop sees each file
                position = int(name[8:], 16)
                found[name[:8]].append((position >> 32) * per_log + (position & 0xFFFFFFFF))
        numbers = {int(digits, 16): sorted(found[digits]) for digits in sorted(found)}
        return cls(names, numbers, {timeline: runs_of(ascending) for timeline, ascending in numbers.items()})


@dataclass(frozen=True, slots=True, eq=False)
class ArchiveContents:
    """Everything that is known about one system identifier's archive. Make it with ``of``.

    ``copies`` are the names of the verified files, by store. ``segments`` are the files of kind SEGMENT by timeline and
    segment number. ``main`` is the path to the newest timeline with a segment or a base backup; None for an empty
    archive. Files and base backups of another segment size than the newest record's are left out, copies too: their
    names are positions of another kind. ``breaks`` are the segments that do not continue what lies before them, with
    the reason: no recovery passes into one. ``arriving`` are missing segments that may be on their way: segments after
    them were stored lately. ``tails`` are the pieces of segments, by the segment's name; they count where none of the
    chosen stores has the whole segment (see ``Coverage``).
    """

    system_identifier: int
    wal_segment_size: int
    files: Mapping[str, WalFile]
    copies: Mapping[str, frozenset[str]]
    backups: Mapping[str, HeldBackup]
    histories: Mapping[int, TimelineHistory]
    segments: Mapping[int, Mapping[int, WalFile]]
    paths: Mapping[int, TimelinePath]
    main: TimelinePath | None
    breaks: Mapping[str, str] = field(default_factory=dict)
    arriving: frozenset[str] = frozenset()
    tails: Mapping[str, tuple[HeldPiece, ...]] = field(default_factory=dict)
    _numbered: list[Numbered] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(
        cls,
        system_identifier: int,
        *,
        files: Iterable[WalFile],
        copies: Mapping[str, Collection[str]],
        backups: Iterable[HeldBackup] = (),
        histories: Mapping[int, TimelineHistory] | None = None,
        breaks: Mapping[str, str] | None = None,
        arriving: frozenset[str] = frozenset(),
        tails: Iterable[HeldPiece] = (),
    ) -> Self:
        """Index the records of one system identifier, and leave out others among ``files`` and ``backups``.

        ``copies`` has an entry for each configured store, with names of this system identifier only. ``breaks`` are
        known from elsewhere; those that the records' own joints show are added.
        """
        mine = [file for file in files if file.system_identifier == system_identifier]
        held = [one for one in backups if one.backup.system_identifier == system_identifier]
        size = _segment_size(mine, held)
        others = {file.name for file in mine if file.wal_segment_size not in (size, None)}
        mine = [file for file in mine if file.wal_segment_size in (size, None)]
        held = [one for one in held if one.backup.wal_segment_size == size]
        segments = _segments(mine, size)
        comparable = {store: frozenset(names) - others for store, names in copies.items()}
        named = {name[:8] for names in comparable.values() for name in names if _is_segment(name)}
        owning = {int(digits, 16) for digits in named} | set(segments) | {one.backup.timeline for one in held}
        pieces = pieces_by_segment(tails, system_identifier, size)
        owning |= begun_in_pieces(pieces, histories or {})
        paths = all_paths(owning, histories or {}, size)
        return cls(
            system_identifier=system_identifier,
            wal_segment_size=size,
            files={file.name: file for file in mine},
            copies=comparable,
            backups={one.backup.backup_id: one for one in sorted(held, key=lambda one: one.backup.backup_id)},
            histories=dict(histories or {}),
            segments=segments,
            paths=paths,
            main=paths[max(owning)] if owning else None,
            breaks={**(breaks or {}), **breaks_among(mine, segments, paths, histories or {})},
            arriving=arriving,
            tails=pieces,
        )

    def with_files(self, files: Iterable[WalFile]) -> Self:
        """Return the same archive with these records instead."""
        return type(self).of(
            self.system_identifier,
            files=files,
            copies=self.copies,
            backups=self.backups.values(),
            histories=self.histories,
            breaks=self.breaks,
            arriving=self.arriving,
            tails=[one for pieces in self.tails.values() for one in pieces],
        )

    def without_pieces(self, pieces: Collection[HeldPiece]) -> Self:
        """Return the same archive without some pieces, which cannot be used."""
        left = {name: tuple(one for one in held if one not in pieces) for name, held in self.tails.items()}
        return replace(self, tails=left)

    def break_numbers(self, timeline: int) -> list[int]:
        """Return the ascending numbers of a timeline's segments that continue nothing."""
        prefix = f"{timeline:08X}"
        return sorted(self.number(name) for name in self.breaks if name.startswith(prefix))

    @property
    def stores(self) -> tuple[str, ...]:
        """The names of the stores, in order."""
        return tuple(sorted(self.copies))

    def number(self, name: str) -> int:
        """Return the segment number of a name that begins with a segment's name."""
        return int(name[8:16], 16) * ((1 << 32) // self.wal_segment_size) + int(name[16:24], 16)

    def names_on(self, stores: Iterable[str]) -> frozenset[str]:
        """Return the names that any of the stores holds."""
        chosen = [self.copies.get(store, frozenset[str]()) for store in stores]
        return chosen[0] if len(chosen) == 1 else frozenset[str]().union(*chosen)

    def numbered(self, stores: Iterable[str]) -> "Numbered":
        """Return the names that any of the stores holds, with their segments' numbers and runs, by timeline.

        The result is kept: stores mostly hold the same files, and each window and gap needs it again.
        """
        names = self.names_on(stores)
        known = next((one for one in self._numbered if one.names == names), None)
        if known is None:
            known = Numbered.of(names, self.wal_segment_size)
            self._numbered.append(known)
        return known

    def last_commit(self, path: TimelinePath, run: Run) -> tuple[datetime | None, bool]:
        """Return the time of the last commit in a run, in WAL order, and whether it is certainly the last.

        Otherwise a later segment has unknown commit times, and the time is a lower bound.
        """
        known = True
        for file in self._backwards(path, run):
            if file is None or file.commit_times is not CommitTimes.KNOWN:
                known = False
            elif file.last_commit_at is not None:
                return file.last_commit_at, known
        return None, known

    def first_commit(self, path: TimelinePath, run: Run) -> datetime | None:
        """Return the time of the first known commit in a run."""
        times = (file.first_commit_at for _, file in self.along(path, run) if file is not None)
        return next((time for time in times if time is not None), None)

    def along(self, path: TimelinePath, run: Run) -> Iterator[tuple[int, WalFile | None]]:
        """Yield the numbers of a run, each with its segment's record; None where there is no record."""
        for timeline, (first, last) in path.parts(run):
            files = self.segments.get(timeline, {})
            yield from ((number, files.get(number)) for number in range(first, last + 1))

    def _backwards(self, path: TimelinePath, run: Run) -> Iterator[WalFile | None]:
        for timeline, (first, last) in reversed(list(path.parts(run))):
            files = self.segments.get(timeline, {})
            yield from (files.get(number) for number in range(last, first - 1, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """The segments that some stores hold together: one counts if any of them has it. Make it with ``of``.

    ``numbers`` are the ascending segment numbers by timeline; ``runs`` are the same numbers as runs. ``tails`` are the
    segments, by timeline and number, that none of the stores holds whole, and whose beginning their pieces prove
    together. ``contents`` describe such a segment by its pieces.
    """

    contents: ArchiveContents
    stores: frozenset[str]
    numbers: Mapping[int, list[int]]
    runs: Mapping[int, list[Run]]
    tails: Tails = field(default_factory=dict)

    @classmethod
    def of(cls, contents: ArchiveContents, stores: Iterable[str]) -> Self:
        """Index the segments that ``stores`` hold."""
        chosen = frozenset(stores)
        numbered = contents.numbered(chosen)
        tails = join_tails(contents.tails, numbered.names, chosen)
        return cls(_described(contents, tails), chosen, numbered.numbers, numbered.runs, tails)

    def has(self, name: str) -> bool:
        """Say whether any of the stores holds a file."""
        return any(name in self.contents.copies.get(store, ()) for store in self.stores)

    def can_follow(self, path: TimelinePath) -> bool:
        """Say whether PostgreSQL can follow the path: a timeline with a parent needs its history file."""
        return len(path.stretches) == 1 or self.has(history_name(path.timeline).name)

    def tail_at(self, path: TimelinePath, number: int) -> JoinedTail | None:
        """Return what pieces prove of the segment ``number`` on a path; None where it is whole, or nothing is proven.

        The segment with which a timeline begins repeats its parent's up to the switch: pieces that end before it would
        end the recovery earlier than the parent's segment does, and are not used.
        """
        timeline = path.owner(number) if number >= path.stretches[0].first else 0
        tail = self.tails.get(timeline, {}).get(number)
        if tail is None or tail.segment.name in self.contents.breaks:
            return None
        switches = [stretch.end_lsn for stretch in path.stretches if stretch.end_lsn // path.wal_segment_size == number]
        return None if switches and tail.end_lsn < max(switches) else tail

    def tails_in(self, path: TimelinePath, run: Run) -> tuple[JoinedTail, ...]:
        """Return the segments of a run that are there in pieces alone, in order."""
        numbers = sorted(number for tails in self.tails.values() for number in tails if run[0] <= number <= run[1])
        found = (self.tail_at(path, number) for number in dict.fromkeys(numbers))
        return tuple(tail for tail in found if tail is not None)

    def runs_on(self, path: TimelinePath) -> list[Run]:
        """Return the runs of segments along a path; a switch of timelines breaks no run, but what continues nothing.

        A segment whose pieces are all of it continues a run. One that is not finished is in no run.
        """
        runs = self._whole_runs_on(path)
        if not self.tails:
            return runs
        found: list[Run] = []
        for index, (begin, last) in enumerate(runs):
            first, end = begin, last
            follower = runs[index + 1][0] if index + 1 < len(runs) else None
            while end + 1 != follower and (tail := self.tail_at(path, end + 1)) is not None and tail.is_whole:
                end += 1
            if found and found[-1][1] + 1 == first and path.name(first) not in self.contents.breaks:
                first = found.pop()[0]
            found.append((first, end))
        return found

    def reached_on(self, path: TimelinePath) -> list[Run]:
        """Return the runs along a path that a recovery can follow: with all that is there in pieces.

        An unfinished segment ends its run. Unlike in ``runs_on``, pieces may make runs of their own: behind a hole they
        show no gap, since shipping may be ahead of archiving.
        """
        runs = self.runs_on(path)
        if not self.tails:
            return runs
        numbers = {number for tails in self.tails.values() for number in tails}
        tails = {number: tail for number in sorted(numbers) if (tail := self.tail_at(path, number)) is not None}
        return join_runs(runs, tails, {first for first, _ in runs if path.name(first) in self.contents.breaks})

    def _whole_runs_on(self, path: TimelinePath) -> list[Run]:
        found: list[Run] = []
        for stretch in path.stretches:
            breaks = self.contents.break_numbers(stretch.timeline) if self.contents.breaks else []
            for first, last in split_runs(
                _clip(self.runs.get(stretch.timeline, []), stretch.first, stretch.last), breaks
            ):
                if found and found[-1][1] + 1 == first and first not in breaks:
                    found[-1] = (found[-1][0], last)
                else:
                    found.append((first, last))
        return found

    def count(self, timeline: int, run: Run) -> int:
        """Return how many of a run's segments the stores hold."""
        numbers = self.numbers.get(timeline, [])
        return bisect_right(numbers, run[1]) - bisect_left(numbers, run[0])

    def held(self, path: TimelinePath) -> list[BaseBackup]:
        """Return the base backups from which the path can be followed, in WAL order, restorable or not."""
        found = (one.backup for one in self.contents.backups.values() if one.stores & self.stores)
        return sorted((backup for backup in found if path.holds(backup)), key=wal_order)

    def restorable(self, path: TimelinePath) -> list[tuple[BaseBackup, Run]]:
        """Return the base backups that can be restored along a path, in WAL order, each with its run of segments."""
        if not self.can_follow(path):
            return []
        runs = self.reached_on(path)
        found = ((backup, _run_of(backup, runs)) for backup in self.held(path) if self._has_chain(backup))
        return [(backup, run) for backup, run in found if run is not None and self._is_consistent(path, backup, run)]

    def _is_consistent(self, path: TimelinePath, backup: BaseBackup, run: Run) -> bool:
        """Say whether a run reaches a base backup's stop: its last segment may be there in part."""
        tail = self.tail_at(path, run[1])
        return tail is None or backup.stop_lsn <= tail.end_lsn

    def _has_chain(self, backup: BaseBackup) -> bool:
        links = chain_of(self.contents, backup)
        held = self.contents.backups
        return links is not None and all(held[link.backup_id].stores & self.stores for link in links)


def chain_of(contents: ArchiveContents, backup: BaseBackup) -> tuple[BaseBackup, ...] | None:
    """Return the chain of a base backup, the full one first and itself last; None if one of them is not known."""
    links = [backup]
    while links[0].parent_id is not None:
        parent = contents.backups.get(links[0].parent_id)
        if parent is None or parent.backup in links:
            return None
        links.insert(0, parent.backup)
    return tuple(links)


def needed_run(backup: BaseBackup) -> Run:
    """Return the run of segments that a base backup needs to become consistent."""
    first = backup.start_lsn // backup.wal_segment_size
    return first, max(first, (backup.stop_lsn - 1) // backup.wal_segment_size)


def wal_order(backup: BaseBackup) -> tuple[Lsn, int, str]:
    """Return the key that sorts the base backups of one path by their stop LSN."""
    return backup.stop_lsn, backup.timeline, backup.backup_id


def _run_of(backup: BaseBackup, runs: list[Run]) -> Run | None:
    first, last = needed_run(backup)
    index = bisect_right(runs, first, key=lambda run: run[0]) - 1
    return runs[index] if index >= 0 and last <= runs[index][1] else None


def _clip(runs: list[Run], first: int, last: int) -> Iterator[Run]:
    for begin, end in runs[bisect_left(runs, first, key=lambda run: run[1]) :]:
        if begin > last:
            return
        if first <= last:
            yield max(begin, first), min(end, last)


def _described(contents: ArchiveContents, tails: Tails) -> ArchiveContents:
    """Return the contents with a record of each tail in place of its segment's."""
    if not tails:
        return contents
    segments = dict(contents.segments)
    for timeline, by_number in tails.items():
        records = {number: tail.record() for number, tail in by_number.items()}
        segments[timeline] = ChainMap(records, cast("dict[int, WalFile]", segments.get(timeline, {})))
    return replace(contents, segments=segments)


def _is_segment(name: str) -> bool:
    return len(name) == _SEGMENT_NAME_LENGTH and "." not in name


def _segment_size(files: list[WalFile], held: list[HeldBackup]) -> int:
    sized = [(file.spooled_at, file.wal_segment_size) for file in files if file.wal_segment_size is not None]
    sized += [(one.backup.finished_at, one.backup.wal_segment_size) for one in held]
    return max(sized)[1] if sized else 16 << 20


def _segments(files: list[WalFile], wal_segment_size: int) -> dict[int, dict[int, WalFile]]:
    per_log = (1 << 32) // wal_segment_size
    found = defaultdict[int, dict[int, WalFile]](dict)
    for file in files:
        if file.kind is FileKind.SEGMENT:
            found[file.timeline][int(file.name[8:16], 16) * per_log + int(file.name[16:24], 16)] = file
    return dict(found)
