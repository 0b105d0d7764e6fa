"""Finds the damage that blocks expiry: what a verification by names and sizes would call a fault, and could heal.

It is the verification's own comparison, so that expiry waits for nothing that a verification does not look at.
"""

from collections.abc import Callable
from datetime import datetime

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.commands.expire.damage import Damage, Unsettled
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.commands.verify.compare import Comparer
from wal_pipeline.commands.verify.results import Fault, ItemKind
from wal_pipeline.commands.verify.verdict import Verdict

_NEVER_STORED = (CopyStatus.PENDING, CopyStatus.FAILED)


def find_unsettled(
    survey: ClusterSurvey,
    rule: RetentionRule,
    now: datetime,
    in_spool: Callable[[str], bool | None],
    verdict: Verdict | None,
) -> Unsettled:
    """Return the damage of one system identifier. What ``verdict`` says is lost cannot be healed, and is left out.

    ``now`` is from before the survey; what was verified since may not have been listed. What a store never held is no
    damage: it may be refilled there at any time.
    """
    compared = Comparer(survey, rule, now, in_spool).compare()
    faults = [*compared.faults, *(one.fault for one in compared.suspects)]
    lost = verdict.lost if verdict is not None else frozenset()
    open_faults = [one for one in faults if one.item not in lost and _was_held(survey, one, now)]
    damage = tuple(Damage(one.store, one.item.name, one.message) for one in open_faults)
    return Unsettled(damage, None if verdict is None else verdict.begun_at)


def _was_held(survey: ClusterSurvey, fault: Fault, now: datetime) -> bool:
    """Say whether a store has something of an item, or is recorded to have had it before ``now``."""
    listing, name = survey.listings[fault.store], fault.item.name
    if fault.item.kind is ItemKind.BASE_BACKUP:
        if name in listing.base:
            return True
        backup = survey.records.backups.get((fault.store, name))
        return backup is not None and _is_held(backup.status, backup.verified_at, now)
    copy = survey.records.copy(fault.store, name)
    return name in listing.wal or (copy is not None and _is_held(copy.status, copy.verified_at, now))


def _is_held(status: CopyStatus, verified_at: datetime | None, now: datetime) -> bool:
    return status not in _NEVER_STORED and (verified_at is None or verified_at < now)
