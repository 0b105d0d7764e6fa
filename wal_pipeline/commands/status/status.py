"""Judges the archive as it stands now: five metrics against their goals, the recovery point, and the open problems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from wal_pipeline.archive.alerts import AlertKind, Observation, Severity, default_severity
from wal_pipeline.archive.recovery.reach import RecoveryReach
from wal_pipeline.catalog.drills import DrillRecord
from wal_pipeline.commands.health.facts import HealthFacts
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.text import counted, length, size


class Rating(StrEnum):
    """The verdict on a figure, and on the whole archive."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """The exit code of a Nagios plugin."""
        return {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}[self.value]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure against its goal. ``value`` is the number itself, None where it is not known."""

    name: str
    value: float | None
    shown: str
    goal: str
    verdict: Rating


@dataclass(frozen=True, slots=True)
class Problem:
    """A cause that needs a person. ``since_at`` is None where no alert is open for it yet."""

    kind: AlertKind
    subject: str
    severity: Severity
    message: str
    since_at: datetime | None = None
    acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class RecoveryPoint:
    """The loss if the server were lost now, and the time that a restore takes.

    ``reach`` says how far the window of any store reaches, with the RPO: see ``RecoveryReach``. None where nothing can
    be recovered. ``latest_commit_at`` is the last commit that a store can bring back, as far as it is known.
    ``unarchived_bytes`` is the WAL that the server has written since, with or without commits; None where the server
    was not asked. ``rto_seconds`` by store: the duration of the last good drill's restore.
    """

    latest_commit_at: datetime | None
    reach: RecoveryReach | None
    unarchived_bytes: int | None
    rto_seconds: Mapping[str, float]

    @property
    def rpo_seconds(self) -> float | None:
        """The RPO, or the most that it can be; None where it is not known."""
        return None if self.reach is None else self.reach.rpo_seconds


@dataclass(frozen=True, slots=True)
class ArchiveStatus:
    """Everything on the screen."""

    facts: HealthFacts
    metrics: tuple[Metric, ...]
    problems: tuple[Problem, ...]
    point: RecoveryPoint

    @property
    def can_recover(self) -> bool:
        """Whether any base backup can be restored from any store."""
        return bool(self.facts.windows.windows.get(None))

    @property
    def verdict(self) -> Rating:
        """The worst problem that nobody acknowledged; never OK where nothing can be recovered.

        Nor is it where copies fail or wait too long now, which becomes a problem only after some tries.
        """
        ranks = [problem.severity for problem in self.problems if not problem.acknowledged]
        if Severity.CRITICAL in ranks:
            return Rating.CRITICAL
        known = any(problem.acknowledged for problem in self.problems)
        missed = not known and any(self.metric(name).verdict is Rating.WARNING for name in (LAG, STORAGE, FAILED))
        return Rating.WARNING if Severity.WARNING in ranks or not self.can_recover or missed else Rating.OK

    def metric(self, name: str) -> Metric:
        """Return one of the five metrics."""
        return next(metric for metric in self.metrics if metric.name == name)


SUCCESS_RATE: Final = "archive success rate"
LAG: Final = "archive lag"
STORAGE: Final = "storage"
FAILED: Final = "failed archives"
ALERTS: Final = "active alerts"


def judge(facts: HealthFacts, limits: HealthLimits) -> ArchiveStatus:
    """Judge the facts. A problem counts whether or not the health sensor has seen it too."""
    problems = current_problems(facts, observe(facts, limits))
    metrics = (
        _success_rate(facts, limits),
        _lag(facts, limits),
        _storage(facts),
        _failed(facts),
        _alerts(problems),
    )
    return ArchiveStatus(facts, metrics, problems, recovery_point(facts))


def current_problems(facts: HealthFacts, observed: Mapping[AlertKind, Sequence[Observation]]) -> tuple[Problem, ...]:
    """Return the causes observed now and the open alerts of kinds that were not judged, the most urgent first."""
    open_alerts = {(alert.kind, alert.subject): alert for alert in facts.alerts}
    found = []
    for kind, observations in observed.items():
        for seen in observations:
            alert = open_alerts.get((kind, seen.subject))
            severity = seen.severity or default_severity(kind)
            since_at = alert.opened_at if alert else None
            acknowledged = alert is not None and alert.acknowledged_at is not None
            found.append(Problem(kind, seen.subject, severity, seen.message, since_at, acknowledged))
    for alert in facts.alerts:
        if alert.kind not in observed:
            known = alert.acknowledged_at is not None
            found.append(Problem(alert.kind, alert.subject, alert.severity, alert.message, alert.opened_at, known))
    return tuple(sorted(found, key=lambda one: (one.acknowledged, -one.severity.rank, one.kind.value, one.subject)))


def recovery_point(facts: HealthFacts) -> RecoveryPoint:
    """Return the loss if the server were lost now, and the time that a restore takes."""
    window, server = facts.windows.main(None), facts.server.facts
    unarchived = None
    if window is not None and server is not None and server.system_identifier == facts.windows.system_identifier:
        unarchived = max(0, server.wal_lsn - window.latest_lsn)
    return RecoveryPoint(
        latest_commit_at=facts.windows.latest_commit_at,
        reach=facts.reaches.get(None),
        unarchived_bytes=unarchived,
        rto_seconds={
            store.store: rto_seconds(store.last_drill)
            for store in facts.stores
            if store.last_drill is not None and store.last_drill.ok
        },
    )


def rto_seconds(drill: DrillRecord) -> float:
    """Return a drill's seconds until the restored server answered: its ``rto``, else the sum of its phases."""
    if "rto" in drill.seconds:
        return drill.seconds["rto"]
    if drill.seconds:
        return sum(drill.seconds.values())
    return (drill.finished_at - drill.started_at).total_seconds() if drill.finished_at else 0.0


def lag_seconds(facts: HealthFacts) -> float | None:
    """Return the archive lag: that of 19 of 20 of the last hour's copies on the slowest store, or of the oldest file
    that waits, whichever is greater.
    """
    waited = facts.spool.oldest_at if facts.spool is not None and facts.pause is None else None
    values = [store.lag.p95_seconds for store in facts.stores if store.lag is not None]
    if waited is not None:
        values.append(max(0.0, (facts.at - waited).total_seconds()))  # another clock may date it ahead
    return max(values, default=None)


def _success_rate(facts: HealthFacts, limits: HealthLimits) -> Metric:
    goal = f"> {limits.success_rate_goal:.0%} of a day's"
    succeeded, failed = (sum(getattr(one, name) for one in facts.stores) for name in ("succeeded", "failed"))
    if not succeeded + failed:
        return Metric(SUCCESS_RATE, None, "nothing was archived for a day", goal, Rating.UNKNOWN)
    rate = succeeded / (succeeded + failed)
    verdict = Rating.OK if rate >= limits.success_rate_goal else Rating.WARNING
    return Metric(SUCCESS_RATE, rate, f"{_share(rate)} ({succeeded} of {succeeded + failed} copies)", goal, verdict)


def _share(rate: float) -> str:
    return "100 %" if rate == 1 else f"{min(rate, 0.9999) * 100:.2f} %"


def _lag(facts: HealthFacts, limits: HealthLimits) -> Metric:
    goal = f"< {length(limits.lag_goal_seconds)}"
    value = lag_seconds(facts)
    if value is None:
        return Metric(LAG, None, "nothing waits, nothing came for an hour", goal, Rating.OK)
    medians = [f"{one.store} {one.lag.median_seconds:.1f} s" for one in facts.stores if one.lag is not None]
    shown = f"{length(value)}" + (f" (median {', '.join(medians)})" if medians else " (waiting)")
    return Metric(LAG, value, shown, goal, Rating.OK if value < limits.lag_goal_seconds else Rating.WARNING)


def _storage(facts: HealthFacts) -> Metric:
    counts = {one.verified_files for one in facts.stores}
    waiting = len(facts.spool.names) if facts.spool is not None else 0
    equal = max(counts, default=0) - min(counts, default=0) <= waiting
    files = {one.store: "" if equal else f" in {counted(one.verified_files, 'file')}" for one in facts.stores}
    shown = ", ".join(f"{one.store} {size(one.stored_bytes)}{files[one.store]}" for one in facts.stores)
    total = sum(one.stored_bytes for one in facts.stores)
    return Metric(STORAGE, total, shown, "the same on each", Rating.OK if equal else Rating.WARNING)


def _failed(facts: HealthFacts) -> Metric:
    now = sum(sum(one.other_files.values()) for one in facts.stores)
    day = sum(one.failed for one in facts.stores)
    shown = f"{now} now, {day} tries in a day" if day else f"{now}"
    return Metric(FAILED, now, shown, "0", Rating.WARNING if now else Rating.OK)


def _alerts(problems: Sequence[Problem]) -> Metric:
    counted = [problem for problem in problems if problem.severity is not Severity.INFO]
    shown = f"{len(problems)}"
    acknowledged = sum(problem.acknowledged for problem in problems)
    if acknowledged:
        shown += f" ({acknowledged} acknowledged)"
    urgent = [problem.severity for problem in counted if not problem.acknowledged]
    verdict = Rating.CRITICAL if Severity.CRITICAL in urgent else Rating.WARNING if urgent else Rating.OK
    return Metric(ALERTS, len(problems), shown, "0", verdict)
