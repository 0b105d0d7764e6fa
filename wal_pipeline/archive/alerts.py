"""Describes alerts as data: their kinds, their urgency, and the message that people read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from wal_pipeline.text import moment_utc


class AlertKind(StrEnum):
    """The kind of event. Kind and subject (a store, a file, a folder) together name one alert."""

    COPY_FAILED = "copy_failed"  # a file could not be copied to a store, again and again
    STORE_DOWN = "store_down"
    SPOOL_GROWING = "spool_growing"
    SPOOL_NEAR_FULL = "spool_near_full"
    ARCHIVER_FAILING = "archiver_failing"  # pg_stat_archiver: PostgreSQL cannot archive into the spool
    NO_NEW_WAL = "no_new_wal"  # nothing archived for longer than the archive timeout
    GAP = "gap"
    QUARANTINE = "quarantine"
    BASE_BACKUP_FAILED = "base_backup_failed"
    BASE_BACKUP_OLD = "base_backup_old"
    BASE_BACKUP_WAITING = "base_backup_waiting"  # PostgreSQL sent all, and waits for its archiver
    BASE_BACKUP_WARNING = "base_backup_warning"  # PostgreSQL warned of the newest base backup, which is restorable
    PAGES_DAMAGED = "pages_damaged"  # pages had wrong checksums when the newest base backup was taken
    DRILL_FAILED = "drill_failed"
    DRILL_OLD = "drill_old"
    DAMAGE = "damage"  # verification found a copy missing or damaged
    RETENTION_FAILED = "retention_failed"
    DISK_LOW = "disk_low"
    RUN_FAILED = "run_failed"  # a Dagster run
    PAUSED = "paused"
    CATALOG_BEHIND = "catalog_behind"  # the catalog and the stores do not agree
    SENSOR_SILENT = "sensor_silent"  # Dagster's health sensor has stopped looking: the daemon may be dead
    OLDER_TIMELINE = "older_timeline"  # archiving goes on on a timeline that a newer one left: two servers
    NOT_SHIPPING = "not_shipping"  # the open segment should be shipped, and nothing ships it
    TAIL_OLD = "tail_old"  # a store has the newest commits later than promised
    TAIL_CONFLICT = "tail_conflict"  # a store holds parts of the open segment of another history
    SLOT_HOLDS_WAL = "slot_holds_wal"  # the server keeps much WAL for a receiver
    RESTORE_SLOW = "restore_slow"  # a restore is predicted to take longer than the objective
    CATALOG_DOWN = "catalog_down"  # the catalog cannot be read or written: no run can archive
    CLONE_ENDED = "clone_ended"  # a clone reached its end while somebody was connected to it
    WRONG_CLUSTER = "wrong_cluster"  # the live server is of another cluster than the settings say


class Severity(StrEnum):
    """How urgent an alert is."""

    INFO = "info"  # a person may want to know
    WARNING = "warning"  # look today
    CRITICAL = "critical"  # present changes may not be recoverable: look now

    @property
    def rank(self) -> int:
        """The urgency as a number: more is more urgent."""
        return tuple(Severity).index(self)


_SEVERITIES: Final[Mapping[AlertKind, Severity]] = {
    AlertKind.SPOOL_NEAR_FULL: Severity.CRITICAL,
    AlertKind.ARCHIVER_FAILING: Severity.CRITICAL,
    AlertKind.GAP: Severity.CRITICAL,
    AlertKind.PAGES_DAMAGED: Severity.CRITICAL,
    AlertKind.QUARANTINE: Severity.CRITICAL,
    AlertKind.DRILL_FAILED: Severity.CRITICAL,
    AlertKind.DAMAGE: Severity.CRITICAL,
    AlertKind.DISK_LOW: Severity.CRITICAL,
    AlertKind.PAUSED: Severity.INFO,
    AlertKind.CLONE_ENDED: Severity.INFO,
    AlertKind.CATALOG_DOWN: Severity.CRITICAL,
    AlertKind.OLDER_TIMELINE: Severity.CRITICAL,
    AlertKind.SENSOR_SILENT: Severity.CRITICAL,
    AlertKind.WRONG_CLUSTER: Severity.CRITICAL,
    AlertKind.TAIL_CONFLICT: Severity.CRITICAL,
}


def default_severity(kind: AlertKind) -> Severity:
    """Return how urgent alerts of a kind are where nothing else is known."""
    return _SEVERITIES.get(kind, Severity.WARNING)


@dataclass(frozen=True, slots=True)
class Observation:
    """A cause of an alert that is there now. ``message``: lower case, without a full stop, names in quotes."""

    subject: str
    message: str
    severity: Severity | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, from its opening to its end. ``resolved_at`` is None while the cause is there.

    ``opened_sent_at`` and ``resolved_sent_at`` are the moments of the notifications.
    """

    id: int
    kind: AlertKind
    subject: str
    severity: Severity
    message: str
    details: Mapping[str, Any]
    opened_at: datetime
    last_seen_at: datetime
    times_seen: int
    resolved_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    acknowledged_reason: str | None = None
    opened_sent_at: datetime | None = None
    resolved_sent_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether its cause is still there."""
        return self.resolved_at is None


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to people about one or more alerts."""

    title: str
    body: str
    severity: Severity
    resolved: bool


MAX_LINES: Final = 20


def notification(cluster: str, alerts: Sequence[Alert]) -> Notification:
    """Put alerts into one message: the most urgent first, at most ``MAX_LINES`` of them in full."""
    ordered = sorted(alerts, key=lambda alert: (not alert.is_active, -alert.severity.rank, alert.opened_at, alert.id))
    lines = [_line(alert) for alert in ordered[:MAX_LINES]]
    if len(ordered) > MAX_LINES:
        lines.append(f"and {len(ordered) - MAX_LINES} more: see 'wal-pipeline alerts'")
    active = [alert.severity for alert in alerts if alert.is_active]
    severity = max(active, key=lambda item: item.rank, default=Severity.INFO)
    return Notification(_title(cluster, alerts), "\n".join(lines), severity, resolved=not active)


def _title(cluster: str, alerts: Sequence[Alert]) -> str:
    opened = sum(alert.is_active for alert in alerts)
    counts = [(opened, "opened"), (len(alerts) - opened, "resolved")]
    return f"wal-pipeline {cluster}: " + ", ".join(f"{count} {word}" for count, word in counts if count)


def _line(alert: Alert) -> str:
    name = f"{alert.kind.value} {alert.subject}".strip()
    if alert.resolved_at is None:
        return f"[{alert.severity.value}] {name}: {alert.message} (since {moment_utc(alert.opened_at)})"
    lasted = timedelta(seconds=round((alert.resolved_at - alert.opened_at).total_seconds()))
    return f"[resolved] {name}: {alert.message} (from {moment_utc(alert.opened_at)}, lasted {lasted})"
