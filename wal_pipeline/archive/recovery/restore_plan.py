"""Plans a restore: its base backup, its files and their stores, and the moment that it reaches, or why it cannot."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.archive.recovery.branches import Branch, branches_beside
from wal_pipeline.archive.recovery.coverage import ArchiveContents, Coverage, chain_of, needed_run
from wal_pipeline.archive.recovery.tail import JoinedTail, join_pieces
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind, TargetOutsideError
from wal_pipeline.archive.recovery.target_choice import Choice, choose
from wal_pipeline.archive.recovery.timeline_path import TimelinePath
from wal_pipeline.archive.recovery.unread_wal import unread_wal_note
from wal_pipeline.archive.recovery.window import RecoveryWindow, Span, WindowEnd, recovery_windows, spans_on, window_of
from wal_pipeline.errors import RecoveryTargetError
from wal_pipeline.text import counted
from wal_pipeline.wal.names import history_name, segment_name


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the WAL archive, and the stores that it can come from."""

    name: str
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedBackup:
    """A base backup, and the stores that it can come from."""

    backup: BaseBackup
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """The plan of one restore.

    ``asked`` is the target as it was given. ``target`` is for the recovery settings, with a number as its timeline.
    PostgreSQL stops at a time only when it sees a later commit: a time that equals the last commit becomes the end in
    ``target``, and ``bound`` ends the recovery. ``chain`` is the base backup with those it is built on, the full one
    first. ``wal`` and ``histories`` are in the order in which recovery requests them; it may request more, and takes an
    absent file for the end.

    ``commit_at_least`` and ``commit_at_most`` bound the commit time of the last replayed transaction: equal bounds are
    exact, None is not known. ``notes`` are sentences that a person should read before the restore. ``rival`` is another
    timeline that goes on beside the chosen one, where nobody chose: see ``require_chosen_timeline``. ``tails`` are the
    segments of ``wal`` that no store has whole: they are made from their pieces.
    """

    system_identifier: int
    stores: tuple[str, ...]
    asked: RecoveryTarget
    target: RecoveryTarget
    timeline: int
    timelines: tuple[int, ...]
    chain: tuple[PlannedBackup, ...]
    wal: tuple[PlannedFile, ...]
    histories: tuple[PlannedFile, ...]
    window: RecoveryWindow
    commit_at_least: datetime | None
    commit_at_most: datetime | None
    notes: tuple[str, ...]
    rival: Branch | None = None
    tails: tuple[JoinedTail, ...] = ()

    @property
    def tail(self) -> JoinedTail | None:
        """The pieces with which the WAL of the plan ends; None where it ends with a whole segment."""
        ends = self.tails and self.wal and self.tails[-1].segment.name == self.wal[-1].name
        return self.tails[-1] if ends else None

    @property
    def backup(self) -> BaseBackup:
        """The base backup that recovery begins from."""
        return self.chain[-1].backup

    @property
    def bound(self) -> str | None:
        """The last segment that recovery may get, where it goes to the end but must not replay later WAL.

        None where PostgreSQL stops by itself, or where the given target is the end of the archive, wherever it is.
        """
        if self.target.kind is TargetKind.END and self.window.ended_by is WindowEnd.BREAK:
            return self.wal[-1].name  # the next segment is there, and of other WAL
        stops = self.target.kind is not TargetKind.END or self.asked.kind is TargetKind.END
        return None if stops else self.wal[-1].name


def plan_restore(
    contents: ArchiveContents,
    target: RecoveryTarget,
    *,
    stores: Iterable[str] | None = None,
    base_backup: str | None = None,
) -> RestorePlan:
    """Plan a restore from ``stores`` (all by default) to ``target``.

    ``base_backup`` is the id of the one to begin from; by default the newest that is consistent before the target.

    Raises: RecoveryTargetError where the target cannot be reached; TargetOutsideError names the nearest that can.
    """
    coverage = Coverage.of(contents, contents.stores if stores is None else stores)
    if base_backup is not None:
        _require_backup(coverage, base_backup)
    if target.timeline == "current":
        span, choice = _choose_current(coverage, target, base_backup)
    else:
        path = _latest(coverage) if target.timeline == "latest" else _path_to(coverage, target.timeline)
        span, choice = _choose_on(coverage, path, target, base_backup)
    branches = [branch for branch in branches_beside(coverage, span.path) if branch.goes_on]
    rival = None
    if target.timeline == "latest":
        rivals = (branch for branch in branches if _is_rival(branch, target, choice, named=base_backup is not None))
        rival = next(rivals, None)
    plan = _plan(coverage, target, span, choice, branches)
    if rival is None:
        return plan
    return replace(plan, rival=rival, notes=(*plan.notes, f"A restore wants {_options(rival, plan.timeline)}."))


def require_chosen_timeline(plan: RestorePlan) -> None:
    """Refuse to follow one of two timelines that are both written to, unless a person has named it.

    The newer one may be a copy that archives beside its original. Raises: RecoveryTargetError.
    """
    if plan.rival is not None:
        raise RecoveryTargetError(
            f"{plan.rival.describe()}: two servers archive side by side, and which of them is wanted is not known",
            hint=f"Choose with {_options(plan.rival, plan.timeline)}. A copy that was restored beside its original has "
            "the newer timeline: switch its archiving off, or give it a cluster name of its own.",
        )


def _choose_on(
    coverage: Coverage, path: TimelinePath, target: RecoveryTarget, base_backup: str | None, *, own: bool = False
) -> tuple[Span, Choice]:
    spans = [
        replace(span, backups=allowed)
        for span in spans_on(coverage, path)
        if (allowed := tuple(one for one in span.backups if _is_allowed(one, path, base_backup, own=own)))
    ]
    if not spans:
        raise RecoveryTargetError(
            f"no base backup is restorable from {_named(coverage)} on the path to timeline {path.timeline}"
            if base_backup is None
            else f"base backup '{base_backup}' is not restorable from {_named(coverage)} "
            f"on the path to timeline {path.timeline}",
            hint="See 'wal-pipeline status' for the recovery windows of each store.",
        )
    try:
        choice = choose(coverage.contents, path, spans, target)
    except TargetOutsideError as error:
        raise _with_other_ways(error, coverage, path, target) from None
    span = next(span for span in spans if choice.backup in span.backups)
    if choice.to_the_end:
        _refuse_wrong_branch(coverage, span)
    return span, choice


def _is_allowed(backup: BaseBackup, path: TimelinePath, base_backup: str | None, *, own: bool) -> bool:
    return backup.backup_id == (base_backup or backup.backup_id) and (not own or backup.timeline == path.timeline)


def _choose_current(coverage: Coverage, target: RecoveryTarget, base_backup: str | None) -> tuple[Span, Choice]:
    """Choose the newest timeline on which a base backup of its own leads to the target."""
    first_error: RecoveryTargetError | None = None
    for path in sorted(coverage.contents.paths.values(), key=lambda path: -path.timeline):
        if any(backup.timeline == path.timeline for backup, _ in coverage.restorable(path)):
            try:
                return _choose_on(coverage, path, target, base_backup, own=True)
            except RecoveryTargetError as error:
                first_error = first_error or error
    raise first_error or RecoveryTargetError(f"no base backup is restorable from {_named(coverage)}")


def _latest(coverage: Coverage) -> TimelinePath:
    """Return the path to the newest timeline whose first segment, or a restorable base backup on it, is here."""
    for path in sorted(coverage.contents.paths.values(), key=lambda path: -path.timeline):
        first = path.stretches[-1].first
        begun = len(path.stretches) == 1 or coverage.count(path.timeline, (first, first))
        begun = begun or coverage.tail_at(path, first) is not None
        own = any(backup.timeline == path.timeline for backup, _ in coverage.restorable(path))
        if coverage.can_follow(path) and (begun or own):
            return path
    raise RecoveryTargetError(f"no base backup is restorable from {_named(coverage)}: no timeline is archived there")


def _path_to(coverage: Coverage, timeline: int | str) -> TimelinePath:
    paths = coverage.contents.paths
    if not isinstance(timeline, int) or timeline not in paths:
        known = ", ".join(str(one) for one in sorted(paths)) or "none"
        raise RecoveryTargetError(f"timeline {timeline} is not in the archive, expected one of: {known}")
    if not coverage.can_follow(paths[timeline]):
        raise RecoveryTargetError(
            f"timeline {timeline} cannot be followed: {_named(coverage)} has no '{history_name(timeline).name}'",
            hint="Without its history file PostgreSQL does not know the timeline.",
        )
    return paths[timeline]


def _require_backup(coverage: Coverage, backup_id: str) -> None:
    one = coverage.contents.backups.get(backup_id)
    if one is None or not one.stores & coverage.stores:
        raise RecoveryTargetError(
            f"base backup '{backup_id}' is not on {_named(coverage)}", hint="'wal-pipeline status' lists base backups."
        )


def _refuse_wrong_branch(coverage: Coverage, span: Span) -> None:
    """Refuse a recovery to the end that PostgreSQL would continue in the parent's segment, past the switch."""
    path, number = span.path, span.run[1] + 1
    owner = path.owner(number)
    parents = path.timelines[: path.timelines.index(owner)]
    wrong = next((parent for parent in reversed(parents) if coverage.count(parent, (number, number))), None)
    if path.name(number) in coverage.contents.breaks:
        return  # the plan is bound before it
    if wrong is not None and path.stretches[path.timelines.index(owner)].first == number:
        name = segment_name(wrong, number, path.wal_segment_size).name
        raise RecoveryTargetError(
            f"timeline {owner} begins with '{path.name(number)}', which {_named(coverage)} does not have: "
            f"recovery would continue in '{name}', past the switch",
            hint=f"Recover to a time or an LSN before the switch, or along timeline {wrong}.",
        )


def _is_rival(branch: Branch, target: RecoveryTarget, choice: Choice, *, named: bool) -> bool:
    """Say whether a timeline beside the newest one may be the wanted one.

    What lies before the place where they part is the same on both, and so is no choice; nor is a base backup that was
    ``named`` and lies after it.
    """
    if not branch.is_live or choice.last_number < branch.left_number:
        return False
    if target.at is not None and branch.began_at is not None and target.at < branch.began_at:
        return False
    if target.lsn is not None and target.lsn <= branch.left_at_lsn:
        return False
    return not (named and choice.backup.stop_lsn > branch.left_at_lsn)


def _options(branch: Branch, timeline: int) -> str:
    return " or ".join(f"--timeline {one}" for one in sorted((branch.timeline, timeline)))


def _with_other_ways(
    error: TargetOutsideError, coverage: Coverage, path: TimelinePath, target: RecoveryTarget
) -> TargetOutsideError:
    """Add to the hint the other timelines and stores on which a time can be reached."""
    if target.at is None:
        return error
    contents, ways = coverage.contents, []
    for window in recovery_windows(contents, coverage.stores):
        if window.timeline != path.timeline and _reaches(window, target.at):
            ways.append(f"It can be reached on timeline {window.timeline}.")
    if coverage.stores != frozenset(contents.stores):
        for window in recovery_windows(contents):
            if _reaches(window, target.at):
                ways.append(f"From any store it can be reached on timeline {window.timeline}.")
    return TargetOutsideError(
        error.message, before=error.before, after=error.after, hint=" ".join(ways) if ways else None
    )


def _reaches(window: RecoveryWindow, at: datetime) -> bool:
    return window.earliest_at <= at <= window.reaches_at_least


def _plan(
    coverage: Coverage, asked: RecoveryTarget, span: Span, choice: Choice, branches: Sequence[Branch]
) -> RestorePlan:
    contents, path, backup = coverage.contents, span.path, choice.backup
    chain = chain_of(contents, backup) or (backup,)
    first = needed_run(backup)[0]
    store = next(iter(coverage.stores)) if len(coverage.stores) == 1 else None
    window = window_of(contents, store, span)
    wanted = [history_name(timeline).name for timeline in reversed(path.timelines)]
    parts = path.parts((first, choice.last_number))
    names = [_segment(contents, tli, number) for tli, run in parts for number in range(run[0], run[1] + 1)]
    tails = {one.segment.name: one for one in coverage.tails_in(path, (first, choice.last_number))}
    return RestorePlan(
        system_identifier=contents.system_identifier,
        stores=tuple(sorted(coverage.stores)),
        asked=asked,
        target=replace(choice.target, timeline=path.timeline),
        timeline=path.timeline,
        timelines=tuple(timeline for timeline, _ in path.parts((first, choice.last_number))),
        chain=tuple(PlannedBackup(one, _among(coverage, contents.backups[one.backup_id].stores)) for one in chain),
        wal=tuple(_planned(coverage, name, tails) for name in names),
        histories=tuple(_planned(coverage, name, {}) for name in wanted if coverage.has(name)),
        window=window,
        commit_at_least=choice.commit_at_least,
        commit_at_most=choice.commit_at_most,
        notes=(*choice.notes, *_notes(coverage, span, window, choice, branches)),
        tails=tuple(tails.values()),
    )


def _notes(
    coverage: Coverage, span: Span, window: RecoveryWindow, choice: Choice, branches: Sequence[Branch]
) -> list[str]:
    unread = unread_wal_note(coverage.contents)
    notes = [] if unread is None else [unread]
    notes += [f"{_capital(branch.describe())}; timeline {span.path.timeline} was chosen." for branch in branches]
    newest = max((path.timeline for path in coverage.contents.paths.values()), default=span.path.timeline)
    if newest > max([span.path.timeline, *(branch.timeline for branch in branches)]):
        notes.append(f"This recovery follows timeline {span.path.timeline}; timeline {newest} is newer.")
    if choice.to_the_end and window.first_missing in coverage.contents.arriving:
        notes.append(
            f"The recovery ends before '{window.first_missing}', which later segments have overtaken on its way to the "
            "store, or which is lost: make the plan again in a minute. Later WAL is not replayed."
        )
    elif choice.to_the_end and window.ended_by is WindowEnd.GAP:
        notes.append(
            f"The recovery ends at a gap, which begins with '{window.first_missing}': later WAL is not replayed."
        )
    notes += _tail_notes(coverage, span, choice)
    if choice.to_the_end and window.ended_by is WindowEnd.BREAK:
        missing = window.first_missing or ""
        notes.append(
            f"The recovery ends before '{missing}', which is there and cannot be replayed: "
            f"{coverage.contents.breaks[missing]}. Later WAL is not replayed."
        )
    if choice.to_the_end and coverage.stores != frozenset(coverage.contents.stores):
        everywhere = Coverage.of(coverage.contents, coverage.contents.stores)
        ends = [run[1] for run in everywhere.runs_on(span.path) if run[0] <= span.run[1] <= run[1]]
        if ends and ends[0] > span.run[1]:
            notes.append(f"From any store the recovery would continue to '{span.path.name(ends[0])}'.")
    return notes


def _tail_notes(coverage: Coverage, span: Span, choice: Choice) -> list[str]:
    """Name the segments of the plan that are there in pieces alone, and where another history ends it."""
    notes = []
    for tail in coverage.tails_in(span.path, (needed_run(choice.backup)[0], choice.last_number)):
        pieces = f"{counted(len(tail.pieces), 'piece')} on {' and '.join(tail.stores)}"
        notes.append(f"No store has '{tail.segment.name}' as a whole: {pieces} hold it up to {tail.end_lsn}.")
    ends = {span.path.name(number) for number in (span.run[1], span.run[1] + 1)} if choice.to_the_end else set()
    found = [held for name, held in coverage.contents.tails.items() if name in ends and not coverage.has(name)]
    joined = (join_pieces(one for one in held if one.store in coverage.stores) for held in found)
    return notes + [f"{_capital(tail.conflict)}." for tail in joined if tail is not None and tail.conflict is not None]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _segment(contents: ArchiveContents, timeline: int, number: int) -> str:
    return segment_name(timeline, number, contents.wal_segment_size).name


def _planned(coverage: Coverage, name: str, tails: Mapping[str, JoinedTail]) -> PlannedFile:
    if name in tails:
        return PlannedFile(name, tails[name].stores)
    copies = coverage.contents.copies
    return PlannedFile(name, tuple(sorted(store for store in coverage.stores if name in copies.get(store, ()))))


def _among(coverage: Coverage, stores: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(stores & coverage.stores))


def _named(coverage: Coverage) -> str:
    return " and ".join(sorted(coverage.stores)) or "no store"
