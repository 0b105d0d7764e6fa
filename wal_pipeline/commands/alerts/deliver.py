"""Delivers alerts: each opening and each end once, in few messages, and again where a message was lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from wal_pipeline.archive.alerts import Alert, AlertKind, notification
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.destinations import Destination
from wal_pipeline.errors import CatalogError
from wal_pipeline.text import moment_json

MIN_INTERVAL_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 120.0
_STATE: Final = "alerts.delivery"
_CLAIM: Final = "alerts.delivering"
_CLAIM_LASTS: Final = timedelta(minutes=3)
_NEWS_LASTS: Final = timedelta(days=1)
_FIRST_RETRY: Final = timedelta(minutes=1)
_LAST_RETRY: Final = timedelta(hours=1)
_MOST_OWED: Final = 500


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of one call: the alerts that somebody received, those that wait, and the failures by destination."""

    told: int = 0
    waiting: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Debt:
    """The alerts that a destination missed while another received them. It is tried again at ``retry_at``."""

    owed: tuple[int, ...] = ()
    failures: int = 0
    retry_at: datetime | None = None
    last_error: str | None = None

    def failed(self, missed: Sequence[Alert], reason: str, now: datetime) -> "_Debt":
        wait = min(_FIRST_RETRY * 2 ** min(self.failures, 10), _LAST_RETRY)
        return _Debt(tuple(alert.id for alert in missed)[-_MOST_OWED:], self.failures + 1, now + wait, reason)

    def as_json(self) -> dict[str, Any]:
        return {
            "owed": list(self.owed),
            "failures": self.failures,
            "retry_at": moment_json(self.retry_at),
            "last_error": self.last_error,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "_Debt":
        retry_at = values["retry_at"] and datetime.fromisoformat(values["retry_at"])
        return cls(tuple(values["owed"]), values["failures"], retry_at, values["last_error"])


@dataclass(frozen=True, slots=True)
class _DeliveryState:
    """The last message's moment, and the debts by destination, from one call to the next."""

    last_at: datetime | None = None
    debts: Mapping[str, _Debt] = field(default_factory=dict)

    def is_too_soon(self, now: datetime, interval: timedelta) -> bool:
        # A clock that was set back must not silence alerts: a moment in the future is no reason to wait.
        return self.last_at is not None and timedelta(0) <= now - self.last_at < interval

    def as_json(self) -> dict[str, Any]:
        owing = {name: debt.as_json() for name, debt in self.debts.items() if debt != _Debt()}
        return {"last_at": moment_json(self.last_at), "debts": owing}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "_DeliveryState":
        last_at = values["last_at"] and datetime.fromisoformat(values["last_at"])
        return cls(last_at, {name: _Debt.from_json(debt) for name, debt in values["debts"].items()})


def close_alert(catalog: Catalog, alert_id: int, now: datetime) -> Alert:
    """Close the alert of a failed run. Nothing else may ever close it, since nobody need start the same run again.

    Raises: CatalogError where no such alert is open, or where it ends by itself with its cause.
    """
    found = next((alert for alert in catalog.alerts.active() if alert.id == alert_id), None)
    if found is None:
        raise CatalogError(f"no alert {alert_id} is open", hint="See 'wal-pipeline alerts' for the open ones.")
    if found.kind is not AlertKind.RUN_FAILED:
        raise CatalogError(
            f"alert {alert_id} is of kind '{found.kind.value}', which ends when its cause is gone",
            hint="'wal-pipeline alerts ack' tells others that a person knows of it.",
        )
    catalog.alerts.resolve(found.kind, found.subject, now)
    return catalog.alerts.with_ids([alert_id])[0]


def deliver_alerts(
    catalog: Catalog,
    destinations: Sequence[Destination],
    now: datetime,
    *,
    min_interval_seconds: float = MIN_INTERVAL_SECONDS,
    settle_seconds: float = SETTLE_SECONDS,
) -> Delivery:
    """Send the new alerts to every destination, in one message each. Call it as often as you like.

    Messages lie at least ``min_interval_seconds`` apart. The end of an alert is sent once it held for
    ``settle_seconds``, so that a cause that comes and goes makes no storm. Where no destination takes the message, it
    is made again later. Where only some take it, the others are owed it, and are tried again after a wait that doubles
    up to an hour. No message is lost; a kill between sending and recording can repeat one. Only one process delivers at
    a time.

    Raises: CatalogError.
    """
    if not destinations or not catalog.values.claim(_CLAIM, now, now + _CLAIM_LASTS):
        return Delivery()
    try:
        return _deliver(catalog, destinations, now, timedelta(seconds=min_interval_seconds), settle_seconds)
    finally:
        catalog.values.remove(_CLAIM)


def _deliver(
    catalog: Catalog, destinations: Sequence[Destination], now: datetime, interval: timedelta, settle_seconds: float
) -> Delivery:
    kept = catalog.values.get(_STATE)
    state = _DeliveryState.from_json(kept) if kept else _DeliveryState()
    new = [alert for alert in catalog.alerts.unsent(now - _NEWS_LASTS) if _is_ripe(alert, now, settle_seconds)]
    debts = {item.name: state.debts.get(item.name, _Debt()) for item in destinations}
    due = [item for item in destinations if _is_due(debts[item.name], new, now)]
    if not due or state.is_too_soon(now, interval):
        return Delivery(waiting=len(new), failures=_errors(debts))
    tried = _send(catalog, due, debts, new, now)
    told = any(debt.failures == 0 for debt in tried.values())
    after = debts | (tried if told else {name: _still_new(debt, new) for name, debt in tried.items()})
    if told:
        skipped = {item.name for item in destinations} - set(tried)
        after |= {name: _owing(debts[name], new) for name in skipped}
        catalog.alerts.mark_sent(new, now)
    catalog.values.put(_STATE, _DeliveryState(now, after).as_json())
    return Delivery(len(new) if told else 0, 0 if told else len(new), _errors(after))


def _send(
    catalog: Catalog, due: Sequence[Destination], debts: Mapping[str, _Debt], new: Sequence[Alert], now: datetime
) -> dict[str, _Debt]:
    owed = {identifier for item in due for identifier in debts[item.name].owed}
    known = {alert.id: alert for alert in (*catalog.alerts.with_ids(owed), *new)}
    after = {}
    for item in due:
        debt = debts[item.name]
        alerts = [known[key] for key in sorted({*debt.owed, *(alert.id for alert in new)}) if key in known]
        reason = item.send(notification(catalog.cluster, alerts)) if alerts else None
        after[item.name] = _Debt() if reason is None else debt.failed(alerts, reason, now)
    return after


def _is_ripe(alert: Alert, now: datetime, settle_seconds: float) -> bool:
    return alert.resolved_at is None or abs((now - alert.resolved_at).total_seconds()) >= settle_seconds


def _is_due(debt: _Debt, new: Sequence[Alert], now: datetime) -> bool:
    waits = debt.retry_at is not None and now < debt.retry_at <= now + _LAST_RETRY
    return bool(new or debt.owed) and not waits


def _owing(debt: _Debt, new: Sequence[Alert]) -> _Debt:
    missed = sorted({*debt.owed, *(alert.id for alert in new)})
    return replace(debt, owed=tuple(missed)[-_MOST_OWED:])


def _still_new(debt: _Debt, new: Sequence[Alert]) -> _Debt:
    """Owe only the alerts that others received: one that nobody received stays new for all."""
    ids = {alert.id for alert in new}
    return replace(debt, owed=tuple(key for key in debt.owed if key not in ids))


def _errors(debts: Mapping[str, _Debt]) -> dict[str, str]:
    return {name: debt.last_error for name, debt in debts.items() if debt.last_error is not None}
