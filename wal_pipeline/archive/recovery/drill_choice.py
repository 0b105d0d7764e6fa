"""Draws a drill's recovery target from the whole window, where the last replayed commit is known beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, WalFileName, require_file_name


@dataclass(frozen=True, slots=True)
class DrillChoice:
    """A recovery target just after ``last``, the last segment that is replayed whole.

    ``replayed`` are the segments from the base backup's start to ``last``, in order: the recovery must report the
    last commit in them. ``next_file`` follows ``last``; None at the end of the archive.
    """

    target: RecoveryTarget
    last: WalFileName
    replayed: tuple[WalFileName, ...]
    next_file: WalFileName | None


def choose_drill(
    wal: Sequence[str], stop_lsn: Lsn, wal_segment_size: int, random: Random, *, unfinished: str | None = None
) -> DrillChoice | None:
    """Choose the end of one of a plan's segments, or the end of the archive; None where the plan has no segment.

    The plan goes to the end of the archive; ``wal`` are its files in the order of recovery. A target inside the base
    backup (before ``stop_lsn``), or in a segment that a switch of timelines leaves in the middle, is not chosen. Nor is
    the end just before the ``unfinished`` segment: no record may follow at which PostgreSQL could stop.
    """
    files = [name for name in map(require_file_name, wal) if name.kind is FileKind.SEGMENT]
    if not files:
        return None
    inner = [
        index
        for index, (file, after) in enumerate(pairwise(files))
        if file.end_lsn(wal_segment_size) >= stop_lsn
        and after.number(wal_segment_size) == file.number(wal_segment_size) + 1
        and after.name != unfinished
    ]
    index = random.choice([*inner, len(files) - 1])
    if index == len(files) - 1:
        return DrillChoice(RecoveryTarget(), files[-1], tuple(files), None)
    # Exclusive: recovery stops before the first record that begins at the segment's end or later.
    lsn = files[index].end_lsn(wal_segment_size)
    target = RecoveryTarget(kind=TargetKind.LSN, lsn=lsn, inclusive=False)
    return DrillChoice(target, files[index], tuple(files[: index + 1]), files[index + 1])
