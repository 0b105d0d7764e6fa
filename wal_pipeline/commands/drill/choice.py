"""Chooses the base backup and the moment that a drill restores, and predicts the last commit by then."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from random import Random
from typing import Any

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import CommitTimes, WalFile
from wal_pipeline.archive.recovery.drill_choice import DrillChoice, choose_drill
from wal_pipeline.archive.recovery.restore_plan import RestorePlan, plan_restore
from wal_pipeline.archive.recovery.tail import JoinedTail
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.archive.recovery.window import RecoveryWindow, WindowEnd
from wal_pipeline.commands.archive_get.tail_wal import SegmentOffset, TailLimits, limits_of
from wal_pipeline.commands.copies.find import find_copy
from wal_pipeline.commands.restore.contents import RestoreInventory, gather
from wal_pipeline.errors import InvalidWalFileError, RecoveryTargetError, RestoreError
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, require_file_name

_LOOK_BACK_SEGMENTS = 512  # an idle cluster's segments hold no commit
_ENDS_BEFORE = "The recovery ends before "  # begins the plan's note that says why
_NEW_WINDOW = "A base backup begins a new window."


@dataclass(frozen=True, slots=True)
class DrillTarget:
    """The base backup from which a drill begins, and the moment to which it restores.

    ``beyond`` says which moments the drill leaves out, because a segment before them has not come yet. ``tails`` are
    the segments to replay that the store has in pieces alone.
    """

    manifest: BaseBackupManifest
    choice: DrillChoice
    beyond: tuple[str, ...] = ()
    tails: tuple[JoinedTail, ...] = ()

    def limits(self, plan: RestorePlan) -> TailLimits:
        """Return how far the recovery may get pieces by its ``plan``, which was made later than this choice.

        At the end of the archive it ends where that was when the choice was made: the original goes on archiving.
        """
        last = self.tails[-1] if self.choice.next_file is None and self.tails else None
        if last is None or last.segment != self.choice.last:
            return limits_of(plan)
        end = SegmentOffset(last.segment, last.end_offset)
        return TailLimits(frozenset(tail.segment.timeline for tail in (*self.tails, *plan.tails)), end, end)


def choose_target(place: ClusterStore, identities: Sequence[Any], random: Random) -> DrillTarget:
    """Draw a base backup from all that the store can restore, and a moment between it and the next one.

    Raises: RestoreError, RecoveryTargetError, StoreError.
    """
    found = gather([place.store], place.layout, None, identities)
    end = _end(found, random)
    newest = found.checked_plan(lambda contents: plan_restore(contents, end))
    window = newest.window
    _require_no_gap(place.store, newest, found.contents.arriving)
    plans = _plans(found, end)
    plan = random.choice(plans)
    backup, size = plan.backup, plan.backup.wal_segment_size
    ends = [one.backup.stop_lsn for one in plans if one.backup.stop_lsn > backup.stop_lsn]
    wal = [file.name for file in plan.wal if not ends or _starts_before(file.name, min(ends), size)]
    unfinished = plan.tail.segment.name if plan.tail is not None and not plan.tail.is_whole else None
    choice = choose_drill(wal, backup.stop_lsn, size, random, unfinished=unfinished)
    if choice is None:
        raise RestoreError(f"{place.name}: base backup '{backup.backup_id}' has no WAL to replay")
    if ends and choice.next_file is None:
        every = [file.name for file in plan.wal]
        choice = choose_drill(every, backup.stop_lsn, size, random, unfinished=unfinished) or choice
    choice = replace(choice, target=replace(choice.target, timeline=end.timeline))
    beyond = _beyond(place, window, found.contents.arriving)
    replayed = {name.name for name in choice.replayed}
    tails = tuple(tail for tail in plan.tails if tail.segment.name in replayed)
    return DrillTarget(found.manifests[backup.backup_id], choice, beyond, tails)


def _beyond(place: ClusterStore, window: RecoveryWindow, arriving: Collection[str]) -> tuple[str, ...]:
    if window.first_missing not in arriving:
        return ()
    return (f"what follows '{window.first_missing}': {place.name} did not have it yet, on its way or lost",)


def _end(found: RestoreInventory, random: Random) -> RecoveryTarget:
    """Return the end of the archive; of one of its timelines where two go on side by side, to drill each in turn."""
    plan = plan_restore(found.contents, RecoveryTarget())
    if plan.rival is None:
        return plan.asked
    return RecoveryTarget(timeline=random.choice((plan.rival.timeline, plan.timeline)))


def _plans(found: RestoreInventory, end: RecoveryTarget) -> list[RestorePlan]:
    """Return a plan to the end of the archive from each base backup that leads there."""
    plans = []
    for backup_id in sorted(found.contents.backups):
        try:
            plans.append(found.checked_plan(partial(plan_restore, target=end, base_backup=backup_id)))
        except RecoveryTargetError:
            continue  # not restorable here, or not on the way to the newest timeline
    return plans


def _require_no_gap(store: Store, plan: RestorePlan, arriving: Collection[str]) -> None:
    """Refuse an archive whose newest moments are out of reach: an older base backup would pass all the same.

    Those behind a segment that may be on its way are not drilled this time.
    """
    window = plan.window
    if window.first_missing in arriving:
        return
    if window.ended_by is WindowEnd.GAP:
        raise RestoreError(
            f"{store.name}: segment '{window.first_missing}' is missing: "
            "no base backup here leads to the segments after it",
            hint="'wal-pipeline verify --repair' copies it from another store; if no store has it, take a base "
            "backup, which begins a new window.",
        )
    if window.ended_by is WindowEnd.BREAK:
        raise RestoreError(
            f"{store.name}: segment '{window.first_missing}' cannot be replayed: "
            "no base backup here leads to the segments after it",
            hint=" ".join([*(note for note in plan.notes if note.startswith(_ENDS_BEFORE)), _NEW_WINDOW]),
        )


def _starts_before(name: str, lsn: Lsn, wal_segment_size: int) -> bool:
    return require_file_name(name).start_lsn(wal_segment_size) < lsn


def predict_commit(place: ClusterStore, choice: DrillChoice, tails: Sequence[JoinedTail] = ()) -> tuple[datetime, ...]:
    """Return the times that the last replayed commit may have, the likeliest first; empty where they are not known.

    A commit whose record begins in the last segment and ends in the next one is counted with the next one. ``tails``
    are the segments among them that the store has in pieces alone.

    Raises: StoreError.
    """
    made = {tail.segment.name: tail.record() for tail in tails}
    for name in reversed(choice.replayed[-_LOOK_BACK_SEGMENTS:]):
        file = made.get(name.name) or _describe(place, name)
        if file is None or file.commit_times is not CommitTimes.KNOWN:
            return ()
        if file.last_commit_at is not None:
            after = _describe(place, choice.next_file) if choice.next_file is not None else None
            crossing = after.first_commit_at if after is not None else None
            return (file.last_commit_at,) if crossing is None else (file.last_commit_at, crossing)
    return ()


def _describe(place: ClusterStore, name: WalFileName) -> WalFile | None:
    key = find_copy(place, name)
    found = place.store.head(key) if key is not None else None
    if key is None or found is None:
        return None
    try:
        return from_metadata(key, found.metadata)[0]
    except InvalidWalFileError:
        return None
