"""Says which base backups that are not whole are surely obsolete: they would expire even if they were whole.

Without this, one damaged manifest would hold all older WAL for ever.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.archive.recovery.timeline_path import TimelinePath
from wal_pipeline.archive.retention.remains import BrokenBackup
from wal_pipeline.errors import InvalidWalNameError
from wal_pipeline.wal.lsn import Lsn


@dataclass(frozen=True, slots=True)
class Successors:
    """The restorable base backups of one store that stay and can stand for older ones.

    ``before_window``: for each live path those on it that finished before the window began. ``restorable``: all that
    stay. Of these the newest ``minimum`` count whatever their age.
    """

    before_window: tuple[tuple[TimelinePath, tuple[BaseBackup, ...]], ...]
    restorable: tuple[BaseBackup, ...]
    begins_at: datetime
    minimum: int
    wal_segment_size: int

    def outlive(self, broken: BrokenBackup) -> bool:
        """Say whether a base backup would expire even if it were whole.

        It was over before the window began. A restorable base backup is newer and finished before the window began
        too, and one is on each live path on which it can lie. And it is none of the newest.
        """
        start_lsn = self._start_lsn(broken)
        if start_lsn is None or broken.ended_at > self.begins_at or not broken.is_understood:
            return False
        for path, standing in self.before_window:
            if _can_lie_on(path, broken, start_lsn) and not any(_is_newer(one, broken, start_lsn) for one in standing):
                return False
        place = (broken.first.timeline, start_lsn)
        stands = any((one.timeline, one.start_lsn) > place for _, standing in self.before_window for one in standing)
        newer = [one for one in self.restorable if (one.timeline, one.start_lsn) > place]
        return stands and len(newer) >= self.minimum

    def _start_lsn(self, broken: BrokenBackup) -> Lsn | None:
        if broken.backup is not None:
            return broken.backup.start_lsn
        try:
            return broken.first.start_lsn(self.wal_segment_size)
        except InvalidWalNameError:  # the id is of another segment size
            return None


def staying(
    broken: Iterable[BrokenBackup],
    kept: Collection[str],
    chains: Mapping[str, tuple[str, ...]],
    successors: Successors,
) -> list[BrokenBackup]:
    """Return the broken base backups that are not surely obsolete, the newest first.

    ``kept`` are the ids of base backups that stay for another reason. What one of them, or a broken one that stays, is
    or may be built on, stays too.
    """
    parents = {parent for key in kept for parent in chains.get(key, ())}
    found: list[BrokenBackup] = []
    for one in sorted(broken, key=lambda one: (one.started_at, one.backup_id), reverse=True):
        needed = one.backup_id in kept or one.backup_id in parents
        may_be_parent = any(later.may_be_built_on(one.backup_id, one.started_at) for later in found)
        if needed or may_be_parent or not successors.outlive(one):
            found.append(one)
    return found


def _can_lie_on(path: TimelinePath, broken: BrokenBackup, start_lsn: Lsn) -> bool:
    """Say whether a path can lead over a base backup; it can where its timeline's history is not known."""
    timeline = broken.first.timeline
    if len(path.stretches) == 1 and path.timeline > timeline:
        return True
    end_lsn = path.end_of(timeline)
    return end_lsn is not None and start_lsn <= end_lsn


def _is_newer(one: BaseBackup, broken: BrokenBackup, start_lsn: Lsn) -> bool:
    return one.start_lsn >= start_lsn and one.started_at > broken.started_at and one.backup_id != broken.backup_id
