"""Decides which base backups one store keeps, and along which timelines it keeps their WAL."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.archive.recovery.coverage import ArchiveContents, Coverage, HeldBackup, chain_of, needed_run
from wal_pipeline.archive.recovery.timeline_path import LAST_NUMBER, Run, TimelinePath, all_paths
from wal_pipeline.archive.retention.ages import EARLIEST, Ages
from wal_pipeline.archive.retention.obsolete import Successors, staying
from wal_pipeline.archive.retention.remains import BrokenBackup, Remains
from wal_pipeline.wal.names import history_name


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Keeps all that any moment of the last ``window`` needs, and at least ``minimum_backups`` base backups."""

    window: timedelta = timedelta(days=30)
    minimum_backups: int = 2

    def __post_init__(self) -> None:
        """Raises: ValueError for a window that is not positive or a minimum under 1."""
        if self.window <= timedelta(0) or self.minimum_backups < 1:
            raise ValueError(f"a retention of {self.window} with {self.minimum_backups} base backups keeps nothing")

    def starts_at(self, now: datetime) -> datetime:
        """Return the first moment that is kept; the earliest possible one where the window reaches before that."""
        try:
            return now - self.window
        except OverflowError:
            return EARLIEST


def live_paths(contents: ArchiveContents, ages: Ages, cutoff_at: datetime) -> list[TimelinePath]:
    """Return the paths along which a moment of the window may lie; the newest timeline's is first.

    Those are the path to the newest timeline, the one to the timeline with the youngest segment, and each abandoned
    branch with a segment that is younger than ``cutoff_at``.
    """
    main = contents.main
    if main is None:
        return []
    youngest = ages.youngest_timeline()
    live = [main]
    for path in contents.paths.values():
        left = path.leaves(main)
        if left is not None:
            age = ages.youngest(path, (left[0], LAST_NUMBER))
            if path.timeline == youngest or (age is not None and age >= cutoff_at):
                live.append(path)
    return live


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The base backups that one store keeps, each with the reason. Make it with ``of``.

    ``reasons`` are of those that are whole, by id. ``broken`` are those that are not whole and stay, ``obsolete`` those
    that are not whole and that nothing can need. ``unled`` are whole, and nobody can say to which timelines they lead.
    """

    reasons: Mapping[str, str]
    live: tuple[TimelinePath, ...]
    broken: tuple[BrokenBackup, ...] = ()
    obsolete: tuple[BrokenBackup, ...] = ()
    unled: tuple[BaseBackup, ...] = ()

    @classmethod
    def of(
        cls,
        alone: Coverage,
        store: str,
        rule: RetentionRule,
        now: datetime,
        *,
        names: Collection[str] = (),
        locked: Collection[str] = (),
        remains: Remains | None = None,
        pieces_at: Mapping[str, datetime] | None = None,
    ) -> Self:
        """Choose the base backups that ``store`` keeps at ``now``; ``alone`` is its coverage.

        ``names`` are all files of which the store has something, or is recorded to have had. ``locked`` are the ids of
        base backups that it refuses to delete. ``remains`` is what it has and nobody can judge. ``pieces_at``: see
        ``Ages.of``.
        """
        remains = remains or Remains()
        contents = alone.contents
        span = _Span(Ages.of(contents, now, pieces_at), rule.starts_at(now), now)
        held = {one.backup.backup_id: one.backup for one in contents.backups.values() if store in one.stores}
        known = held | remains.known
        healed = _healed(contents, store, remains, names)
        paths = live_paths(contents, span.ages, span.begins_at)
        paths += [path for path in live_paths(healed, span.ages, span.begins_at) if path not in paths]
        live = _with_ancestors(paths, alone)
        reasons: dict[str, str] = {}
        for coverage, candidates in _coverages(contents, healed, store, held, known):
            for path in live:
                _add(reasons, _covering(coverage, path, candidates, span))
            _add(reasons, _newest(coverage, candidates, rule.minimum_backups))
            _add(reasons, _newest_sound(coverage, candidates, rule.minimum_backups))
        _add(reasons, _younger(known.values(), span))
        _add(reasons, ((key, "locked by the store") for key in sorted(held) if key in locked))
        unled = dict(_before_unread_histories(alone, live, held, remains, span))
        _add(reasons, unled.items())
        _add(reasons, _parents(contents, [known[key] for key in reasons], held, remains.chains))
        successors = _successors(alone, live, reasons, span, rule.minimum_backups)
        broken = staying(remains.broken, reasons.keys(), remains.chains, successors)
        _add(reasons, _possible_parents(broken, held))
        whole = {key: reason for key, reason in reasons.items() if key in held}
        own = _with_own_paths(live, alone, [held[key] for key in whole])
        obsolete = tuple(one for one in remains.broken if one not in broken)
        return cls(whole, tuple(own), tuple(broken), obsolete, tuple(held[key] for key in unled))


def _healed(contents: ArchiveContents, store: str, remains: Remains, names: Collection[str]) -> ArchiveContents:
    """Return the archive as it would be if the store had whole all that it has something of, or once had.

    A repair, or a person who puts back what was moved away, may make it so tomorrow.
    """
    known = remains.known
    had = contents.copies.get(store, frozenset()) | (frozenset(names) - remains.files.keys())
    had |= {history_name(timeline).name for timeline in contents.histories}
    backups = dict(contents.backups)
    for key, backup in known.items():
        on = backups[key].stores if key in backups else frozenset[str]()
        backups[key] = HeldBackup(backup, on | {store})
    timelines = {one.timeline for one in known.values()}
    paths = {**all_paths(timelines, contents.histories, contents.wal_segment_size), **contents.paths}
    newest = max([*timelines, *([contents.main.timeline] if contents.main is not None else [])], default=None)
    copies = {**contents.copies, store: frozenset(had)}
    main = None if newest is None else paths[newest]
    return replace(contents, copies=copies, backups=backups, paths=paths, main=main)


def _coverages(
    contents: ArchiveContents,
    healed: ArchiveContents,
    store: str,
    held: Mapping[str, BaseBackup],
    known: Mapping[str, BaseBackup],
) -> Iterable[tuple[Coverage, Mapping[str, BaseBackup]]]:
    """Yield the archives that this store may have tomorrow, each with the base backups that count there.

    What is here, and what other stores can refill. Then the same if all were whole that something is left of, and if
    no segment were missing, and each continued the one before it.
    """
    yield Coverage.of(contents, [store]), held
    yield Coverage.of(contents, contents.stores), held
    yield Coverage.of(healed, [store]), known
    together = Coverage.of(healed, healed.stores)
    yield together, known
    whole = {timeline: [(runs[0][0], runs[-1][1])] for timeline, runs in together.runs.items()}
    yield replace(together, contents=replace(healed, breaks={}), runs=whole), known


def restorable_ids(coverage: Coverage) -> set[str]:
    """Return the ids of the base backups that can be restored along any path."""
    paths = coverage.contents.paths.values()
    return {backup.backup_id for path in paths for backup, _ in coverage.restorable(path)}


def _add(reasons: dict[str, str], more: Iterable[tuple[str, str]]) -> None:
    for key, reason in more:
        reasons.setdefault(key, reason)


@dataclass(frozen=True, slots=True)
class _Span:
    """The window that is kept, and the segments' ages."""

    ages: Ages
    begins_at: datetime
    now: datetime

    def reached_by(self, path: TimelinePath, run: Run) -> bool:
        """Say whether a moment of the window can lie in a run."""
        youngest_at = self.ages.youngest(path, run)
        return youngest_at is None or youngest_at >= self.begins_at


def _covering(
    coverage: Coverage, path: TimelinePath, held: Mapping[str, BaseBackup], span: _Span
) -> list[tuple[str, str]]:
    """Choose on one path: for each run into the window the newest base backup before the window, and all later ones."""
    mine = [backup for backup in coverage.held(path) if backup.backup_id in held]
    finished = _finished_at(mine, path, span)
    runs = coverage.runs_on(path)
    covers: dict[Run, BaseBackup] = {}
    sound: dict[Run, BaseBackup] = {}
    for backup, run in coverage.restorable(path):
        if backup.backup_id in held and finished[backup.backup_id] <= span.begins_at:
            covers[run] = backup
            if not backup.is_damaged:
                sound[run] = backup
    before = "before the window began, on the path to timeline"
    chosen: list[tuple[str, str]] = []
    needed: list[BaseBackup] = []
    for found, which in ((covers, "the newest base backup"), (sound, "the newest base backup without damaged pages")):
        reached = [backup for run, backup in found.items() if run == runs[-1] or span.reached_by(path, run)]
        chosen += [(backup.backup_id, f"{which} {before} {path.timeline}") for backup in reached]
        needed += reached
    chosen += [(key, "younger than the window") for key, at in finished.items() if at > span.begins_at]
    if needed:
        oldest = min(needed, key=mine.index)
        later = mine[mine.index(oldest) + 1 :]
        reason = f"later than base backup {oldest.backup_id}, from which the window is reached"
        chosen += [(backup.backup_id, reason) for backup in later]
    return chosen


def _with_ancestors(live: list[TimelinePath], alone: Coverage) -> list[TimelinePath]:
    """Add, for a path whose history file is missing, the nearest path on its way that can be followed."""
    paths = alone.contents.paths
    chosen = list(live)
    for path in live:
        ways = (paths[timeline] for timeline in reversed(path.timelines))
        nearest = next(way for way in ways if alone.can_follow(way))
        if nearest not in chosen:
            chosen.append(nearest)
    return chosen


def _with_own_paths(live: list[TimelinePath], alone: Coverage, kept: list[BaseBackup]) -> list[TimelinePath]:
    """Add the paths of base backups that are kept for another reason than a live path."""
    paths = alone.contents.paths
    restorable = {path.timeline: {b.backup_id for b, _ in alone.restorable(path)} for path in paths.values()}
    chosen = list(live)
    for backup in kept:
        ways = [path for path in paths.values() if backup.backup_id in restorable[path.timeline]]
        ways = ways or [path for path in paths.values() if path.holds(backup)]
        if not any(way in chosen for way in ways):
            chosen.append(ways[-1])
    return chosen


def _finished_at(in_wal_order: list[BaseBackup], path: TimelinePath, span: _Span) -> dict[str, datetime]:
    """Return when each finished, but not before the commits that precede it: the server's clock may have gone back.

    A time in the future is wrong too, and counts for that base backup alone.
    """
    latest, number = EARLIEST, 0
    finished = {}
    for backup in in_wal_order:
        last = needed_run(backup)[1] - 1
        latest = max(latest, span.ages.latest_commit(path, (number, last)) or latest)
        number, at = last + 1, backup.finished_at
        if at <= span.now:
            latest = at = max(at, latest)
        finished[backup.backup_id] = at
    return finished


def _newest(coverage: Coverage, candidates: Mapping[str, BaseBackup], minimum: int) -> list[tuple[str, str]]:
    restorable = [candidates[key] for key in restorable_ids(coverage) if key in candidates]
    newest = sorted(restorable, key=lambda one: (one.timeline, one.stop_lsn, one.backup_id))[-minimum:]
    return [(one.backup_id, f"one of the newest {minimum} base backups") for one in newest]


def _newest_sound(coverage: Coverage, candidates: Mapping[str, BaseBackup], minimum: int) -> list[tuple[str, str]]:
    """Choose the newest ones without damaged pages: a person restores from them what the pages held."""
    sound = {key: one for key, one in candidates.items() if not one.is_damaged}
    found = _newest(coverage, sound, minimum) if len(sound) < len(candidates) else []
    return [(key, f"{reason} without damaged pages") for key, reason in found]


def _younger(backups: Iterable[BaseBackup], span: _Span) -> list[tuple[str, str]]:
    return [(one.backup_id, "younger than the window") for one in backups if one.finished_at > span.begins_at]


def _parents(
    contents: ArchiveContents,
    kept: list[BaseBackup],
    held: Mapping[str, BaseBackup],
    chains: Mapping[str, tuple[str, ...]],
) -> list[tuple[str, str]]:
    known = ((one, [link.backup_id for link in chain_of(contents, one) or ()][:-1]) for one in kept)
    links = ((one.backup_id, parent) for one, chain in known for parent in (*chain, *chains.get(one.backup_id, ())))
    return [(parent, f"parent of incremental {child}") for child, parent in links if parent in held]


def _possible_parents(broken: Iterable[BrokenBackup], held: Mapping[str, BaseBackup]) -> Iterable[tuple[str, str]]:
    for one in broken:
        word = "may be a parent" if one.chain is None else "parent"
        for key, backup in held.items():
            if one.may_be_built_on(key, backup.started_at):
                yield key, f"{word} of base backup {one.backup_id}, which is not whole"


def _before_unread_histories(
    alone: Coverage, live: list[TimelinePath], held: Mapping[str, BaseBackup], remains: Remains, span: _Span
) -> Iterable[tuple[str, str]]:
    """Yield the base backups of older timelines while nothing on a live timeline stands for them.

    Nobody can say which of them lead there: its history file is there, and cannot be read.
    """
    for path in live:
        if path.timeline in remains.unread_histories and not _before_window(alone, path, span):
            reason = f"may lead to timeline {path.timeline}, whose history file cannot be read"
            yield from ((key, reason) for key, one in held.items() if one.timeline < path.timeline)


def _before_window(alone: Coverage, path: TimelinePath, span: _Span) -> list[BaseBackup]:
    """Return the base backups that can be restored along a path and finished before the window began."""
    finished = _finished_at(alone.held(path), path, span)
    return [one for one, _ in alone.restorable(path) if finished[one.backup_id] <= span.begins_at]


def _successors(
    alone: Coverage, live: list[TimelinePath], kept: Collection[str], span: _Span, minimum: int
) -> Successors:
    contents = alone.contents
    return Successors(
        tuple((way, _sound(_before_window(alone, way, span), kept)) for way in live),
        _sound((contents.backups[key].backup for key in sorted(restorable_ids(alone))), kept),
        span.begins_at,
        minimum,
        contents.wal_segment_size,
    )


def _sound(backups: Iterable[BaseBackup], kept: Collection[str]) -> tuple[BaseBackup, ...]:
    """Return those that stay and have no damaged pages: only they stand for another one."""
    return tuple(one for one in backups if one.backup_id in kept and not one.is_damaged)
