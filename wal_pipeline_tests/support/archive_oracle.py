"""Finds what can be recovered the slow way: walks from each base backup, file by file, as PostgreSQL reads them.

It shares no code with the windows, gaps and retention that it judges, except names and timeline histories.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from wal_pipeline.archive.records import BaseBackup, CommitTimes
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.wal.names import history_name
from wal_pipeline.wal.timeline import TimelineHistory


@dataclass(frozen=True)
class Walk:
    """The segments that recovery from one base backup to one timeline reads. It must read ``consistent`` of them."""

    backup: BaseBackup
    timeline: int
    names: tuple[str, ...]
    consistent: int


@dataclass(frozen=True)
class Holding:
    """The names of WAL files and the ids of base backups with a manifest on some stores."""

    wal: frozenset[str]
    backups: frozenset[str]


def holding(contents: ArchiveContents, stores: Collection[str]) -> Holding:
    """Return the names and ids that the stores hold together."""
    wal = {one for store in stores for one in contents.copies.get(store, ())}
    held = {key for key, one in contents.backups.items() if one.stores & set(stores)}
    return Holding(frozenset(wal), frozenset(held))


def walks(contents: ArchiveContents, held: Holding) -> list[Walk]:
    """Walk from each restorable base backup towards each timeline."""
    timelines = {1} | set(contents.histories) | {int(one[:8], 16) for one in held.wal}
    timelines |= {contents.backups[key].backup.timeline for key in held.backups}
    found = []
    for timeline in sorted(timelines):
        way = contents.histories.get(timeline, TimelineHistory(timeline))
        if way.switches and history_name(timeline).name not in held.wal:
            continue
        for key in sorted(held.backups):
            walk = _walk(contents, contents.backups[key].backup, way, held)
            if walk is not None:
                found.append(walk)
    return found


def restorable(contents: ArchiveContents, held: Holding) -> set[str]:
    """Return the ids of the base backups that can be restored."""
    return {walk.backup.backup_id for walk in walks(contents, held)}


def longest(found: list[Walk]) -> set[tuple[str, tuple[str, ...]]]:
    """Return each base backup's walks, without those that another of its walks continues."""
    each = {(walk.backup.backup_id, walk.names) for walk in found}
    return {
        (key, names)
        for key, names in each
        if not any(k == key and len(n) > len(names) and n[: len(names)] == names for k, n in each)
    }


def moments(contents: ArchiveContents, walk: Walk) -> Iterator[tuple[datetime, str]]:
    """Yield the possible targets, each with the segment at which recovery to it stops.

    The targets are the times of the commits after the base backup, and the time at which it finished.
    """
    after = walk.names[walk.consistent - 1 :]
    known = [(at, one) for one in after if (at := last_commit(contents, one)) is not None]
    for at in {walk.backup.finished_at, *(at for at, _ in known)}:
        stop = next((one for commit_at, one in known if commit_at >= at), None)
        if at >= walk.backup.finished_at and stop is not None:
            yield at, stop


def last_commit(contents: ArchiveContents, file_name: str) -> datetime | None:
    """Return the last commit that the records have of a segment."""
    file = contents.files.get(file_name)
    return file.last_commit_at if file is not None and file.commit_times is CommitTimes.KNOWN else None


def reaches(archive: ArchiveContents, walk: Walk, at: datetime, stop: str | None) -> bool:
    """Say whether a recovery to a time can begin here and comes to its end, and that in the segment ``stop``."""
    after_it = walk.names[walk.consistent - 1 :]
    commits = (last_commit(archive, one) for one in after_it)
    ends = any(commit_at is not None and commit_at >= at for commit_at in commits)
    return walk.backup.finished_at <= at and ends and (stop is None or stop in after_it)


def _walk(contents: ArchiveContents, backup: BaseBackup, way: TimelineHistory, held: Holding) -> Walk | None:
    if not way.holds(backup.timeline, backup.stop_lsn) or not _has_parents(contents, backup, held):
        return None
    size = contents.wal_segment_size
    names, number = [], backup.start_lsn // size
    while (wanted := way.segment_candidates(number, size)[0].name) in held.wal:
        names.append(wanted)
        number += 1
    consistent = (backup.stop_lsn - 1) // size - backup.start_lsn // size + 1
    return Walk(backup, way.timeline, tuple(names), consistent) if len(names) >= consistent else None


def _has_parents(contents: ArchiveContents, backup: BaseBackup, held: Holding) -> bool:
    while backup.parent_id is not None:
        if backup.parent_id not in held.backups:
            return False
        backup = contents.backups[backup.parent_id].backup
    return True
