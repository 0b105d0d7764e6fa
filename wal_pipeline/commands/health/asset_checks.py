"""Judges the assets for Dagster's asset checks, from the same facts as the status. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.archive.recovery.gaps import Gap, GapState
from wal_pipeline.commands.health.answer import gap_text, store_answer
from wal_pipeline.commands.health.facts import HealthFacts, StoreFacts
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.commands.health.shipping import ShippingState, tail_numbers, tail_sentence
from wal_pipeline.commands.health.windows import newest_finished_at, usable_backups
from wal_pipeline.text import counted, length, size


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The result of one check. ``numbers`` are shown and plotted beside it in the UI.

    ``is_warning`` is for a check that did not pass: a person should know it, and nothing is lost now. Dagster shows it
    with the severity WARN instead of ERROR.
    """

    passed: bool
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    is_warning: bool = False


_OTHER_GAPS: Final = (
    ("past", GapState.CLOSED),
    ("accepted", GapState.ACKNOWLEDGED),
    ("arriving", GapState.ON_ITS_WAY),
)
StoreCheck = Callable[[HealthFacts, HealthLimits, StoreFacts], CheckVerdict]


def no_gap(facts: HealthFacts, _limits: HealthLimits, store: StoreFacts) -> CheckVerdict:
    """Pass where no segment is missing on the store; a segment on its way is not missing.

    An open gap is an error. A past gap, which a later base backup closed, is a warning: its moments cannot be restored.
    """
    found = {state: facts.windows.gaps_in(store.store, state) for state in GapState}
    opened, past = found[GapState.OPEN], found[GapState.CLOSED]
    lasting = [gap for state in (GapState.OPEN, GapState.ACKNOWLEDGED, GapState.CLOSED) for gap in found[state]]
    numbers = {
        "open_gaps": len(opened),
        "past_gaps": len(past),
        "missing_segments": sum(gap.segments for gap in lasting),
    }
    parts = [_gaps_said("open", opened) if opened else "no open gap"]
    parts += [_gaps_said(word, found[state]) for word, state in _OTHER_GAPS if found[state]]
    return CheckVerdict(not opened and not past, "; ".join(parts), numbers, is_warning=bool(past) and not opened)


def _gaps_said(word: str, gaps: Sequence[Gap]) -> str:
    more = f"; and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    return f"{counted(len(gaps), f'{word} gap')} {gap_text(gaps[0])}{more}"


def window_restorable(facts: HealthFacts, _limits: HealthLimits, store: StoreFacts) -> CheckVerdict:
    """Pass where the cluster can be restored from the store alone now."""
    reach, window = facts.reaches.get(store.store), facts.windows.main(store.store)
    numbers: dict[str, float] = {} if window is None else {"segments": window.segments}
    if reach is not None and reach.rpo_seconds is not None:
        numbers["rpo_seconds"] = round(reach.rpo_seconds, 1)
    return CheckVerdict(window is not None, store_answer(facts, store.store), numbers)


def window_whole(facts: HealthFacts, limits: HealthLimits, store: StoreFacts) -> CheckVerdict:
    """Pass where no moment is missing from the first base backup on the store to the window's end.

    The same gaps as in ``no_gap``: an open one is an error, a past one a warning.
    """
    if facts.windows.main(store.store) is None:
        return CheckVerdict(False, f"nothing can be restored from {store.store}, so there is no window")
    return no_gap(facts, limits, store)


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
    waited = 0.0 if oldest_at is None else max(0.0, (facts.at - oldest_at).total_seconds())
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
    """Pass where the last drill from the store passed, and is not too long ago.

    Until the first drill is due, which is the limit after the first base backup, its absence is a warning.
    """
    drill, limit = store.last_drill, timedelta(days=limits.drill_max_age_days)
    if drill is None or drill.finished_at is None:
        return _never_drilled(facts, limit)
    age = facts.at - drill.finished_at
    said = f"{'passed' if drill.ok else 'failed'} {length(age)} ago, expected one in {length(limit)}"
    return CheckVerdict(bool(drill.ok) and age <= limit, said, {"age_days": round(age.total_seconds() / 86400, 1)})


def _never_drilled(facts: HealthFacts, limit: timedelta) -> CheckVerdict:
    first_at = min((one.finished_at for one in facts.windows.backups), default=None)
    if first_at is None:
        return CheckVerdict(False, "no drill yet: there is no base backup to restore", is_warning=True)
    if facts.at - first_at <= limit:
        return CheckVerdict(False, f"no drill yet, the first is due by {first_at + limit:%Y-%m-%d}", is_warning=True)
    return CheckVerdict(False, f"never drilled, though the first was due by {first_at + limit:%Y-%m-%d}")


def spool_under_limit(facts: HealthFacts, limits: HealthLimits) -> CheckVerdict:
    """Pass where the spool is far from its limit."""
    spool = facts.spool
    if spool is None or spool.error is not None:
        return CheckVerdict(False, "PG_WAL_ARCHIVE_DIR is not set" if spool is None else str(spool.error))
    most = limits.spool_near_full_share * limits.spool_limit_bytes
    said = f"{spool.files} files, {size(spool.size_bytes)} of {size(limits.spool_limit_bytes)}"
    return CheckVerdict(spool.size_bytes < most, said, {"files": spool.files, "bytes": spool.size_bytes})


def tail_on_time(facts: HealthFacts, store: StoreFacts) -> CheckVerdict:
    """Pass where the store has each commit within the interval and a second, in 99 of 100 cases of the last hour.

    An error where a person must look: nothing ships, the store holds another history, the tail is older than promised
    by more than a minute, or half of the last hour's commits came too late. A warning where that is over, or is a
    single slow upload, during a pause, and before anything was shipped: the promise is not kept then, and not broken
    for long.
    """
    health, tail = facts.shipping, facts.shipping.tail(store.store)
    if health.goal is None or tail is None:
        return CheckVerdict(False, f"the open segment is not shipped ({health.state.value})", is_warning=True)
    numbers = tail_numbers(tail)
    said = tail_sentence(tail, health.goal)
    is_error = tail.state in (ShippingState.NOT_POSSIBLE, ShippingState.STOPPED) or tail.is_conflict
    if is_error or tail.is_late(health.goal):
        return CheckVerdict(False, said, numbers)
    if tail.tail is None or tail.behind_seconds is None or tail.state is not ShippingState.RUNNING:
        return CheckVerdict(False, said, numbers, is_warning=True)
    was_late = tail.was_late(health.goal)
    return CheckVerdict(not was_late, said, numbers, is_warning=was_late)


WINDOW_CHECKS: Final[Mapping[str, StoreCheck]] = {
    "can_be_restored": window_restorable,
    "no_gap_inside": window_whole,
}
"""The checks of the recovery window, for each store."""

SEGMENT_CHECKS: Final[Mapping[str, StoreCheck]] = {
    "no_gap": no_gap,
    "every_file": every_file,
    "newest_fresh": newest_fresh,
}
