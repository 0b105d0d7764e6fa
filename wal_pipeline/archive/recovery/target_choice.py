"""Chooses the base backup and the last segment that lead to a recovery target on one path."""

from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import Final

from wal_pipeline.archive.records import BaseBackup, CommitTimes, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents, needed_run
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind, TargetOutsideError
from wal_pipeline.archive.recovery.timeline_path import TimelinePath
from wal_pipeline.archive.recovery.window import Span
from wal_pipeline.wal.lsn import Lsn

_UNSEEN: Final = "Commit times are not known up to the target: PostgreSQL fails if no commit comes after it."

_LAST_COMMIT: Final = (
    "The target is the last commit that is archived: recovery ends with the last segment of this plan."
)
_NOTHING_SINCE: Final = (
    "No commit lies between the last one that is archived and the target, after which a base backup was taken or WAL "
    "without a commit was shipped: recovery ends with the last segment of this plan."
)
_END_OF_TAIL: Final = "The target is the end of the WAL that was shipped: recovery ends there."


@dataclass(frozen=True, slots=True)
class Choice:
    """A base backup, and ``last_number``, the last segment that is replayed.

    ``to_the_end``: PostgreSQL replays until no further segment is there. The commit times are as in RestorePlan.
    """

    backup: BaseBackup
    target: RecoveryTarget
    last_number: int
    commit_at_least: datetime | None
    commit_at_most: datetime | None
    to_the_end: bool = False
    notes: tuple[str, ...] = ()


def choose(contents: ArchiveContents, path: TimelinePath, spans: list[Span], target: RecoveryTarget) -> Choice:
    """Choose from the windows on one path. There is at least one of ``spans``; they are in WAL order.

    Raises: TargetOutsideError.
    """
    if target.at is not None:
        return _to_time(contents, path, spans, target, target.at)
    if target.lsn is not None:
        return _to_lsn(contents, path, spans, target, target.lsn)
    if target.kind is TargetKind.IMMEDIATE:
        backup = spans[-1].backups[-1]
        return Choice(backup, target, needed_run(backup)[1], None, backup.finished_at)
    if target.kind is TargetKind.END:
        return _to_end(contents, spans[-1], spans[-1].backups[-1], target)
    return _to_sight(contents, spans, target)


def _to_end(contents: ArchiveContents, span: Span, backup: BaseBackup, target: RecoveryTarget) -> Choice:
    run = needed_run(backup)[0], span.run[1]
    last_at, known = contents.last_commit(span.path, run)
    return Choice(backup, target, run[1], last_at, last_at if known else None, to_the_end=True)


def _to_time(
    contents: ArchiveContents, path: TimelinePath, spans: list[Span], target: RecoveryTarget, at: datetime
) -> Choice:
    index, backup = _newest_finished(spans, at)
    if backup is None:
        raise _outside(contents, spans, 0, target, "before the first moment that can be restored")
    span = spans[index]
    last_at, known = contents.last_commit(path, span.run)
    found = _first_number_past(contents, span, backup, at, inclusive=target.inclusive)
    if found is None and known and (last_at is None or at > last_at):
        if at <= span.reaches_at_least(None):
            choice = _to_end(contents, span, backup, replace(target, kind=TargetKind.END, at=None))
            return replace(choice, notes=(_NOTHING_SINCE,))
        raise _outside(contents, spans, index + 1, target, _what_is_missing(contents, span, spans[index + 1 :]))
    if found is None and known and at == last_at and target.inclusive:
        choice = _to_end(contents, span, backup, replace(target, kind=TargetKind.END, at=None))
        return replace(choice, notes=(_LAST_COMMIT,))
    last = span.run[1] if found is None else found
    at_least = _last_commit_until(contents, span, (needed_run(backup)[0], last), at)
    return Choice(backup, target, last, at_least, at, notes=() if found is not None else (_UNSEEN,))


def _outside(
    contents: ArchiveContents, spans: list[Span], index: int, target: RecoveryTarget, where: str
) -> TargetOutsideError:
    """Return the error for a time between the windows before ``index`` and the later ones."""
    before = _last_reached(contents, spans[index - 1]) if index else None
    after = spans[index].backups[0].finished_at if index < len(spans) else None
    return TargetOutsideError(
        f"{target} is {where} on timeline {spans[0].path.timeline}",
        before=None if before is None else before.isoformat(" "),
        after=None if after is None else after.isoformat(" "),
    )


def _last_reached(contents: ArchiveContents, span: Span) -> datetime:
    """Return the last time that can surely be a target in a window: that of its last commit or base backup."""
    return span.reaches_at_least(contents.last_commit(span.path, span.run)[0])


def _what_is_missing(contents: ArchiveContents, span: Span, later: list[Span]) -> str:
    if span.first_missing is None:
        return "later than the last commit that is archived"
    if span.first_missing in contents.breaks:
        return f"past '{span.first_missing}', which cannot be replayed ({contents.breaks[span.first_missing]}),"
    if span.first_missing in contents.arriving:
        return f"past '{span.first_missing}', which is on its way to the store or lost (try again in a minute),"
    return f"{'in' if later else 'after the beginning of'} the gap that begins with '{span.first_missing}'"


def _to_lsn(
    contents: ArchiveContents, path: TimelinePath, spans: list[Span], target: RecoveryTarget, lsn: Lsn
) -> Choice:
    number = lsn // contents.wal_segment_size
    begun = [index for index, span in enumerate(spans) if span.backups[0].stop_lsn <= lsn]
    if not begun:
        raise TargetOutsideError(
            f"{target} is before the first LSN that can be restored on timeline {path.timeline}",
            before=None,
            after=str(spans[0].backups[0].stop_lsn),
        )
    span = spans[begun[-1]]
    if span.tail is not None and lsn == span.end_lsn:
        choice = _to_end(contents, span, span.backups[-1], replace(target, kind=TargetKind.END, lsn=None))
        return replace(choice, notes=(_END_OF_TAIL,))
    if number > span.run[1] or (span.tail is not None and lsn > span.end_lsn):
        later = spans[begun[-1] + 1 :]
        where = _past_what(contents, span)
        raise TargetOutsideError(
            f"{target} is {where} on timeline {path.timeline}",
            before=str(_surely_reached(contents, span)),
            after=str(later[0].backups[0].stop_lsn) if later else None,
        )
    backup = [one for one in span.backups if one.stop_lsn <= lsn][-1]
    at_least, _ = contents.last_commit(path, (needed_run(backup)[0], number - 1))
    at_most, known = contents.last_commit(path, (needed_run(backup)[0], number))
    # the record at the target may end in the next segment
    return Choice(backup, target, min(number + 1, span.run[1]), at_least, at_most if known else None)


def _past_what(contents: ArchiveContents, span: Span) -> str:
    missing = span.first_missing
    if span.tail is not None and not span.tail.is_whole:
        return f"past {span.end_lsn}, up to which '{span.tail.segment.name}' was shipped,"
    if missing is None:
        return "past the end of the archive"
    if missing in contents.breaks:
        return f"past '{missing}', which cannot be replayed ({contents.breaks[missing]}),"
    if missing in contents.arriving:
        return f"past '{missing}', which is on its way to the store or lost (try again in a minute),"
    return f"past '{missing}', which is missing"


def _surely_reached(contents: ArchiveContents, span: Span) -> Lsn:
    """Return a late LSN of a window at which PostgreSQL certainly stops: a record begins there or later.

    The last segment may end in zeros or within a record. A segment's only commit may begin in the segment before; a
    second commit does not. Where no commit is known, it is the end of the newest base backup: the record that switches
    to the next segment follows it.
    """
    for number, file in reversed(list(contents.along(span.path, span.run))):
        if file is not None and file.last_commit_at is not None:
            begun = number if file.first_commit_at != file.last_commit_at else number - 1
            return max(Lsn(begun * contents.wal_segment_size), span.backups[0].stop_lsn)
    return span.backups[-1].stop_lsn


def _to_sight(contents: ArchiveContents, spans: list[Span], target: RecoveryTarget) -> Choice:
    """Choose for an xid or a name, which the records do not hold: PostgreSQL stops where it first sees the target.

    Without ``not_before_at`` it is the newest base backup. Where the target lies before it, PostgreSQL fails at the end
    and opens nothing wrong; from an older one it might stop at an older restore point with the same name.
    """
    span, backup = spans[-1], spans[-1].backups[-1]
    if target.not_before_at is not None:
        index, found = _newest_finished(spans, target.not_before_at)
        span, backup = (spans[index], found) if found is not None else (spans[0], spans[0].backups[0])
    note = (
        f"The records do not say where {target} is. Recovery looks for it from base backup '{backup.backup_id}' "
        f"({backup.finished_at.isoformat(' ')}) on. If it lies before, recovery fails at the end: then name an older "
        "base backup."
    )
    choice = _to_end(contents, span, backup, target)
    return replace(choice, commit_at_least=None, commit_at_most=choice.commit_at_most, notes=(note,))


def _newest_finished(spans: list[Span], at: datetime) -> tuple[int, BaseBackup | None]:
    """Return the newest base backup that is consistent at a time, and the index of its window."""
    for index in range(len(spans) - 1, -1, -1):
        # in WAL order: after one that finished too late, an earlier time comes from a clock that went back
        before = list(takewhile(lambda one: one.finished_at <= at, spans[index].backups))
        if before:
            return index, before[-1]
    return -1, None


def _first_number_past(
    contents: ArchiveContents, span: Span, backup: BaseBackup, at: datetime, *, inclusive: bool
) -> int | None:
    """Return the first segment with a commit at which PostgreSQL would stop; None where none is known.

    It need not be the last that may matter: where the clock went back, later commits have earlier times.
    """
    stop = needed_run(backup)[1]
    for number, file in contents.along(span.path, (stop, span.run[1])):
        for time in _times_known(file) if number > stop else _times_known(file)[-1:]:
            if time > at or (time == at and not inclusive):
                return number
    return None


def _last_commit_until(contents: ArchiveContents, span: Span, run: tuple[int, int], at: datetime) -> datetime | None:
    latest: datetime | None = None
    for _, file in contents.along(span.path, run):
        for time in (file.first_commit_at, file.last_commit_at) if file is not None else ():
            if time is not None and time <= at:
                latest = time
    return latest


def _times_known(file: WalFile | None) -> list[datetime]:
    """Return the times of a segment's first and last commit."""
    if file is None or file.commit_times is not CommitTimes.KNOWN:
        return []
    return [time for time in (file.first_commit_at, file.last_commit_at) if time is not None]
