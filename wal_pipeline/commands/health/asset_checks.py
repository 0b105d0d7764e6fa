"""Judges the assets for Dagster's asset checks, from the same facts as the status. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.commands.health.facts import HealthFacts, StoreFacts
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.commands.health.windows import newest_finished_at, usable_backups
from wal_pipeline.text import length, size


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The result of one check. ``numbers`` are shown and plotted beside it in the UI."""

    passed: bool
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)


StoreCheck = Callable[[HealthFacts, HealthLimits, StoreFacts], CheckVerdict]


def no_gap(facts: HealthFacts, _limits: HealthLimits, store: StoreFacts) -> CheckVerdict:
    """Pass where no segment is missing in a kept window of the store; a segment on its way is not missing."""
    gaps = facts.windows.open_gaps(store.store)
    missing = sum(gap.segments for gap in gaps)
    numbers = {"gaps": len(gaps), "missing_segments": missing}
    if not gaps:
        return CheckVerdict(True, "no segment is missing", numbers)
    first = gaps[0]
    said = f"{missing} segments are missing, first '{first.first_missing}'; {first.held_elsewhere} are elsewhere"
    return CheckVerdict(False, said, numbers)


def every_file(facts: HealthFacts, _limits: HealthLimits, store: StoreFacts) -> CheckVerdict:
    """Pass where the store has every file of the archive, apart from those that wait in the spool."""
    waiting = len(facts.spool.names) if facts.spool is not None else 0
    missing = max(0, facts.files - store.verified_files)
    bad = sum(store.other_files.get(status, 0) for status in (CopyStatus.MISSING, CopyStatus.DAMAGED))
    numbers = {"files": store.verified_files, "missing_files": missing, "bad_files": bad}
    said = f"{store.verified_files} of {facts.files} files are verified on {store.store}"
    return CheckVerdict(missing <= waiting and not bad, said + (f", {bad} are bad" if bad else ""), numbers)


def newest_fresh(facts: HealthFacts, limits: HealthLimits, store: StoreFacts) -> CheckVerdict:
    """Pass where archived WAL arrives within the goal. An idle server archives nothing and passes."""
    oldest_at = facts.spool.oldest_at if facts.spool is not None else None
    waited = 0.0 if oldest_at is None else (facts.at - oldest_at).total_seconds()
    lag = store.lag.p95_seconds if store.lag is not None else 0.0
    stuck = observe(facts, limits).get(AlertKind.NO_NEW_WAL) or []
    passed = waited <= limits.lag_goal_seconds and lag <= limits.lag_goal_seconds and not stuck
    said = stuck[0].message if stuck else f"lag {length(lag)}, the oldest file waits for {length(waited)}"
    return CheckVerdict(passed, said, {"lag_p95_seconds": lag, "oldest_wait_seconds": waited})


def base_backup_fresh(facts: HealthFacts, limits: HealthLimits, store: StoreFacts) -> CheckVerdict:
    """Pass where the newest base backup that can be restored from the store is young enough."""
    usable = usable_backups(facts.windows, store.store)
    if not usable:
        return CheckVerdict(False, "no base backup: nothing can be restored from here", {"base_backups": 0})
    newest_at = newest_finished_at(usable, facts.at)
    if newest_at is None:
        return CheckVerdict(False, "every base backup is dated in the future", {"base_backups": len(usable)})
    age = facts.at - newest_at
    limit = timedelta(hours=limits.base_backup_max_age_hours)
    numbers = {"age_hours": age.total_seconds() / 3600, "base_backups": len(usable)}
    return CheckVerdict(age <= limit, f"{length(age)} old, expected at most {length(limit)}", numbers)


def drill_passed(facts: HealthFacts, limits: HealthLimits, store: StoreFacts) -> CheckVerdict:
    """Pass where the last drill from the store passed, and is not too long ago."""
    drill = store.last_drill
    if drill is None or drill.finished_at is None:
        return CheckVerdict(False, "no drill was ever run")
    age, limit = facts.at - drill.finished_at, timedelta(days=limits.drill_max_age_days)
    said = f"{'passed' if drill.ok else 'failed'} {length(age)} ago, expected one in {length(limit)}"
    return CheckVerdict(bool(drill.ok) and age <= limit, said, {"age_days": age.total_seconds() / 86400})


def spool_under_limit(facts: HealthFacts, limits: HealthLimits) -> CheckVerdict:
    """Pass where the spool is far from its limit."""
    spool = facts.spool
    if spool is None or spool.error is not None:
        return CheckVerdict(False, "PG_WAL_ARCHIVE_DIR is not set" if spool is None else str(spool.error))
    most = limits.spool_near_full_share * limits.spool_limit_bytes
    said = f"{spool.files} files, {size(spool.size_bytes)} of {size(limits.spool_limit_bytes)}"
    return CheckVerdict(spool.size_bytes < most, said, {"files": spool.files, "bytes": spool.size_bytes})


SEGMENT_CHECKS: Final[Mapping[str, StoreCheck]] = {
    "no_gap": no_gap,
    "every_file": every_file,
    "newest_fresh": newest_fresh,
}
