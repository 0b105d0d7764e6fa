"""Proves a retention plan against what a store lists: names and ids, before anything is removed.

It knows nothing of the rules that made the plan: no paths, no coverage, no selection. What it cannot explain by a name,
an id, a record or a timeline history is an objection, and then nothing expires.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from wal_pipeline.archive.records import BaseBackup, WalFile
from wal_pipeline.archive.retention.ages import age_of
from wal_pipeline.archive.retention.pieces import segment_of
from wal_pipeline.archive.retention.plan import RetentionPlan, Step
from wal_pipeline.archive.retention.relations import moment_of
from wal_pipeline.errors import InvalidWalNameError, RetentionError
from wal_pipeline.wal.names import (
    FileKind,
    WalFileName,
    history_name,
    require_file_name,
    segment_name,
)
from wal_pipeline.wal.timeline import TimelineHistory

_SEGMENT_NAME_LENGTH: Final = 24
_MOMENT_LENGTH: Final = 16
_HINT: Final = "This is an error in the program: report it with the output of 'wal-pipeline expire --json'."


@dataclass(frozen=True, slots=True)
class Listed:
    """One store's listing below one system identifier, name by name.

    ``backup_ids`` are all ids of which it has an object, ``whole`` the base backups among them that are whole,
    ``chains`` what their manifests say they are built on. ``names`` are the files that it has, ``files`` what is known
    of any file. ``segment_sizes`` are all that anything in the archive says it has; the plan judges those of
    ``wal_segment_size``. ``histories`` are those that could be read. ``pieces_at`` says of each segment of which there
    are pieces when the newest was stored; ``proven`` are the segments of which the store has a verified copy.
    ``lists`` are the moments of the lists of relations.
    """

    backup_ids: frozenset[str]
    whole: Mapping[str, BaseBackup]
    chains: Mapping[str, tuple[str, ...]]
    names: frozenset[str]
    files: Mapping[str, WalFile]
    wal_segment_size: int
    segment_sizes: frozenset[int]
    histories: Mapping[int, TimelineHistory]
    pieces_at: Mapping[str, datetime] = field(default_factory=dict)
    proven: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()


def prove_plan(plan: RetentionPlan, listed: Listed) -> None:
    """Object to a plan that takes what something on the store could need.

    Raises: RetentionError.
    """
    going = frozenset(step.name for step in plan.expire if step.step in (Step.BACKUP_MANIFEST, Step.BACKUP_OBJECTS))
    files = [step.name for step in plan.expire if step.step is Step.WAL_FILE]
    pieces = [segment_of(step.name) for step in plan.expire if step.step is Step.PIECES]
    if plan.expire:
        needs = _Needs(plan, listed, listed.backup_ids - going, listed.names - set(files))
        for objection in (
            *_against_backups(plan, listed, going),
            *_against_files(listed, needs, files),
            *_against_pieces(plan, listed, needs, pieces),
            *_against_lists(plan, listed, listed.backup_ids - going),
        ):
            raise RetentionError(f"{plan.store}: the plan would remove {objection}; nothing expires", hint=_HINT)


def _against_backups(plan: RetentionPlan, listed: Listed, going: frozenset[str]) -> Iterator[str]:
    """Yield the base backups that may not go, with the reason."""
    staying = listed.backup_ids - going
    newest = _newest_restorable(listed)
    if newest is not None and newest.backup_id in going and not _has_newer(listed, staying, newest):
        yield f"base backup '{newest.backup_id}', the newest that can be restored"
    for key in sorted(going):
        for other in staying:
            chain = listed.chains.get(other)
            if key in (chain or ()) or (chain is None and key < other):
                yield f"base backup '{key}', on which base backup '{other}' may be built"
        backup = listed.whole.get(key)
        if backup is None and not _has_successor(plan, listed, staying, key):
            yield f"base backup '{key}', which is not whole, and no newer one stands for it"
        if backup is not None and backup.wal_segment_size != listed.wal_segment_size:
            yield f"base backup '{key}', whose WAL has another segment size"


def _newest_restorable(listed: Listed) -> BaseBackup | None:
    """Return the newest base backup that is whole with its chain and has the segments of its timeline that it needs."""
    found = (one for one in listed.whole.values() if one.wal_segment_size == listed.wal_segment_size)
    able = (one for one in found if _needed_names(one) <= listed.names and _has_chain(listed, one))
    return max(able, key=_age, default=None)


def _has_newer(listed: Listed, staying: frozenset[str], newest: BaseBackup) -> bool:
    """Say whether a newer base backup stays, whose segments lie in part on newer timelines."""
    newest_at = _newest_timelines(listed.names)
    newer = [one for key, one in listed.whole.items() if key in staying and _age(one) > _age(newest)]
    return any(all(newest_at.get(name[8:], "") >= name[:8] for name in _needed_names(one)) for one in newer)


def _newest_timelines(names: Iterable[str]) -> dict[str, str]:
    """Return the newest timeline of which there is a segment at each position."""
    found: dict[str, str] = {}
    for name in names:
        if len(name) == _SEGMENT_NAME_LENGTH and name[:8] > found.get(name[8:], ""):
            found[name[8:]] = name[:8]
    return found


def _has_chain(listed: Listed, backup: BaseBackup) -> bool:
    return all(key in listed.whole for key in listed.chains.get(backup.backup_id, ()))


def _needed_names(backup: BaseBackup) -> set[str]:
    numbers = range(_first(backup), _last(backup) + 1)
    return {segment_name(backup.timeline, number, backup.wal_segment_size).name for number in numbers}


def _age(backup: BaseBackup) -> tuple[int, int, str]:
    return backup.timeline, backup.stop_lsn, backup.backup_id


def _has_successor(plan: RetentionPlan, listed: Listed, staying: frozenset[str], key: str) -> bool:
    """Say whether a base backup that stays is whole, newer and finished before the window began.

    Newer is one that began later, or that is on a newer timeline.
    """
    timeline = int(key[-24:-16], 16)
    whole = (listed.whole[other] for other in staying if other in listed.whole)
    newer = (one for one in whole if one.backup_id > key or one.timeline > timeline)
    return any(one.finished_at <= plan.window_starts_at for one in newer)


def _against_files(listed: Listed, needs: "_Needs", names: list[str]) -> Iterator[str]:
    """Yield the files that may not go, with the reason."""
    for name in names:
        file = require_file_name(name)
        reason = _stays_anyway(listed, file) or needs.reason(file)
        if reason is not None:
            yield f"'{name}', {reason}"


def _against_pieces(plan: RetentionPlan, listed: Listed, needs: "_Needs", segments: list[str]) -> Iterator[str]:
    """Yield the segments whose pieces may not go, with the reason: all that the store has of a segment, or may have."""
    newest = max((name[:8] for name in listed.names if len(name) == _SEGMENT_NAME_LENGTH), default="")
    for name in segments:
        if name in listed.proven and name in listed.names:
            continue
        file = require_file_name(name)
        if listed.pieces_at.get(name, plan.planned_at) > plan.window_starts_at:
            reason: str | None = "which are younger than the window"
        elif name[:8] > newest:
            reason = "a timeline of which nothing else is there"
        else:
            reason = _stays_anyway(listed, file) or needs.reason(file)
        if reason is not None:
            yield f"the pieces of '{name}', {reason}"


def _against_lists(plan: RetentionPlan, listed: Listed, staying: frozenset[str]) -> Iterator[str]:
    """Yield the lists of relations that may not go: those in force since the oldest base backup that stays began."""
    going = {moment_of(step.name) for step in plan.expire if step.step is Step.RELATIONS}
    since = min(staying, default=f"{plan.window_starts_at:%Y%m%dT%H%M%SZ}")[:_MOMENT_LENGTH]
    for moment in sorted(going):
        if not any(moment < other <= since for other in listed.lists - going):
            yield f"the list of relations of {moment}, and no newer one from before {since} stays"


def _stays_anyway(listed: Listed, file: WalFileName) -> str | None:
    record = listed.files.get(file.name)
    if file.kind is FileKind.HISTORY:
        return "a timeline history file"
    if record is None and file.name in listed.names:
        return "of which nothing is known"
    size = record.wal_segment_size if record is not None else None
    if size != listed.wal_segment_size and (size is not None or len(listed.segment_sizes) > 1):
        return f"whose segment size is {size or 'not known'}, expected {listed.wal_segment_size}"
    return None


class _Needs:
    """From which position on the base backups that stay could need the WAL of each timeline."""

    def __init__(self, plan: RetentionPlan, listed: Listed, staying: frozenset[str], names: frozenset[str]) -> None:
        self._plan = plan
        self._listed = listed
        self._size = listed.wal_segment_size
        self._unread = [(int(key[-24:-16], 16), key[-16:], key) for key in staying if key not in listed.whole]
        self._live = self._live_timelines()
        whole = [one for key, one in listed.whole.items() if key in staying and one.wal_segment_size == self._size]
        self._standing = {one.timeline for one in whole if one.finished_at <= plan.window_starts_at}
        self._able = {timeline: [one for one in whole if self._can_reach(one, timeline)] for timeline in self._live}
        self._newest_at = _newest_timelines(names)
        self._oldest: dict[tuple[int, int], BaseBackup | None] = {}
        self._at_least = {
            (one.timeline, number): one.backup_id for one in whole for number in range(_first(one), _last(one) + 1)
        }

    def reason(self, file: WalFileName) -> str | None:
        """Say which base backup could need a file; None where none can."""
        for timeline, position, key in self._unread:  # nothing but its id is sure: no newer timeline is excluded
            if timeline <= file.timeline and position <= file.name[8:24]:
                return f"which base backup '{key}' could need, which is not whole"
        try:
            number = file.number(self._size)
        except InvalidWalNameError:
            return "whose name is no position"
        start = self._at_least.get((file.timeline, number))
        is_last = self._newest_at.get(file.name[8:], "") < file.name[:8]
        if start is not None and file.kind is FileKind.SEGMENT and is_last:
            return f"without which base backup '{start}' is not consistent"
        for timeline in self._live:
            oldest = self._oldest_for(timeline, file.timeline)
            if oldest is not None and number >= _first(oldest) and self._is_on_way(timeline, file.timeline, number):
                return f"which base backup '{oldest.backup_id}' needs on its way to timeline {timeline}"
        return None

    def _oldest_for(self, timeline: int, of: int) -> BaseBackup | None:
        """Return the base backup with the lowest start that leads to ``timeline`` and may read WAL of another one."""
        if (timeline, of) not in self._oldest:
            able = [one for one in self._able[timeline] if one.timeline <= of]
            self._oldest[timeline, of] = min(able, key=_first, default=None)
        return self._oldest[timeline, of]

    def _can_reach(self, backup: BaseBackup, timeline: int) -> bool:
        """Say whether a recovery from a base backup can lead to a timeline, and nothing there stands for it.

        Where the timeline's history cannot be read, each base backup of an older timeline may lead there.
        """
        history = self._listed.histories.get(timeline)
        if history is not None or timeline == backup.timeline:
            return (history or TimelineHistory(timeline)).holds(backup.timeline, backup.stop_lsn)
        may_lead = backup.timeline < timeline and history_name(timeline).name in self._listed.names
        return may_lead and timeline not in self._standing

    def _is_on_way(self, timeline: int, of: int, number: int) -> bool:
        """Say whether a recovery to a timeline can read the segment ``number`` of another one, or of its own."""
        if timeline == of:
            return True
        history = self._listed.histories.get(timeline)
        if history is None:
            return of < timeline and history_name(timeline).name in self._listed.names
        return any(switch.parent == of and number < switch.lsn // self._size for switch in history.switches)

    def _live_timelines(self) -> list[int]:
        """Return the newest timeline, the one with the youngest file, and those with a file of the window off it."""
        ages = self._ages()
        timelines = {timeline for timeline, _ in ages} | {one.timeline for one in self._listed.whole.values()}
        main = max(timelines, default=1)
        youngest = max(ages, key=lambda place: (ages[place], place), default=(main, 0))[0]
        young = {
            timeline
            for (timeline, number), at in ages.items()
            if at >= self._plan.window_starts_at and not self._is_on_way(main, timeline, number)
        }
        return sorted({main, youngest} | young)

    def _ages(self) -> dict[tuple[int, int], datetime]:
        """Return the latest moment that each segment can be from, by timeline and number."""
        found = {}
        per_log, files = (1 << 32) // self._size, self._listed.files
        for name in self._listed.names | files.keys():
            record = files.get(name)
            if len(name) == _SEGMENT_NAME_LENGTH and "." not in name and _is_of_size(record, self._size):
                at = age_of(record) if record is not None else self._plan.planned_at
                found[int(name[:8], 16), int(name[8:16], 16) * per_log + int(name[16:], 16)] = at
        return found


def _is_of_size(record: WalFile | None, size: int) -> bool:
    return record is None or record.wal_segment_size in (size, None)


def _first(backup: BaseBackup) -> int:
    return backup.start_lsn // backup.wal_segment_size


def _last(backup: BaseBackup) -> int:
    return max(_first(backup), (backup.stop_lsn - 1) // backup.wal_segment_size)
