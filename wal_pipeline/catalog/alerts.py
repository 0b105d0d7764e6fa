"""Keeps the table of alerts: one opens once, is refreshed while its cause lasts, and resolves when that ends."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, case, exists, func, or_, select, update

from wal_pipeline.archive.alerts import Alert, AlertKind, Observation, Severity, default_severity
from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.schema import alerts
from wal_pipeline.errors import CatalogError

_COLUMNS: Final = [column for column in alerts.c if column.name != "cluster"]
REOPEN_WITHIN: Final = timedelta(minutes=15)
_OPEN: Final = alerts.c.resolved_at.is_(None)


class Alerts(Area):
    """Alerts of one cluster. At most one is open per kind and subject."""

    def observe(self, kind: AlertKind, seen: Observation, at: datetime) -> None:
        """Open an alert, or refresh the one that is open. One that became more urgent is sent again."""
        with self._database.write() as connection:
            self._observe(connection, kind, seen, at)

    def resolve(self, kind: AlertKind, subject: str, at: datetime) -> bool:
        """Resolve the open alert of a kind and subject; False where none is open."""
        with self._database.write() as connection:
            return self._resolve(connection, and_(alerts.c.kind == kind.value, alerts.c.subject == subject), at) > 0

    def settle(self, kind: AlertKind, observed: Sequence[Observation], at: datetime) -> None:
        """Open or refresh the alerts of a kind that were observed, and resolve all others of that kind."""
        others = and_(alerts.c.kind == kind.value, alerts.c.subject.not_in([item.subject for item in observed]))
        with self._database.write() as connection:
            for item in observed:
                self._observe(connection, kind, item, at)
            self._resolve(connection, others, at)

    def active(self) -> list[Alert]:
        """Return the open alerts, the oldest first."""
        return self._where(_OPEN)

    def all(self, since: datetime | None = None) -> list[Alert]:
        """Return alerts, open and resolved; with ``since``, those open at that moment or later."""
        return self._where(or_(_OPEN, alerts.c.resolved_at >= since) if since else alerts.c.id.is_not(None))

    def with_ids(self, ids: Collection[int]) -> list[Alert]:
        """Return the alerts with these ids; an id without an alert is left out."""
        return self._where(alerts.c.id.in_(sorted(ids))) if ids else []

    def unsent(self, since: datetime) -> list[Alert]:
        """Return the alerts whose opening or end was not sent yet.

        An alert that ended before ``since`` and was never sent is left out: it is no news any more.
        """
        news = or_(alerts.c.opened_sent_at.is_not(None), alerts.c.resolved_at >= since)
        ended = and_(alerts.c.resolved_at.is_not(None), alerts.c.resolved_sent_at.is_(None), news)
        return self._where(or_(and_(_OPEN, alerts.c.opened_sent_at.is_(None)), ended))

    def mark_sent(self, sent: Collection[Alert], at: datetime) -> None:
        """Record that these alerts were sent, in the state in which they were read.

        The end of an alert that was resolved since is still to be sent.
        """
        opened = [alert.id for alert in sent if alert.is_active]
        ended = [alert.id for alert in sent if not alert.is_active]
        with self._database.write() as connection:
            for ids, changes in ((opened, {"opened_sent_at": at}), (ended, {"resolved_sent_at": at})):
                if ids:
                    connection.execute(update(alerts).where(self._mine(alerts), alerts.c.id.in_(ids)).values(changes))

    def acknowledge(self, alert_id: int, by: str, reason: str, at: datetime) -> Alert:
        """Record that a person knows of an alert; it stays open until its cause ends.

        Raises: CatalogError where no such alert is open.
        """
        changes = {"acknowledged_at": at, "acknowledged_by": by, "acknowledged_reason": reason}
        this = and_(self._mine(alerts), alerts.c.id == alert_id, _OPEN)
        with self._database.write() as connection:
            if connection.execute(update(alerts).where(this).values(changes)).rowcount == 0:
                raise CatalogError(f"no alert {alert_id} is open", hint="See 'wal-pipeline alerts' for the open ones.")
        return self._where(alerts.c.id == alert_id)[0]

    def _observe(self, connection: Connection, kind: AlertKind, seen: Observation, at: datetime) -> None:
        severity = seen.severity or default_severity(kind)
        row = {
            "cluster": self._cluster,
            "kind": kind.value,
            "subject": seen.subject,
            "severity": severity.value,
            "message": seen.message,
            "details": dict(seen.details),
            "opened_at": at,
            "last_seen_at": at,
            "times_seen": 1,
        }
        self._take_back_end(connection, row)
        less_urgent = [item.value for item in Severity if item.rank < severity.rank]
        refreshed = {name: row[name] for name in ("severity", "message", "details", "last_seen_at")} | {
            "times_seen": alerts.c.times_seen + 1,
            "opened_sent_at": case((alerts.c.severity.in_(less_urgent), None), else_=alerts.c.opened_sent_at),
        }
        connection.execute(
            self._database.insert(alerts)
            .values(row)
            .on_conflict_do_update(
                index_elements=[alerts.c.cluster, alerts.c.kind, alerts.c.subject],
                index_where=_OPEN,
                set_=refreshed,
            )
        )

    def _take_back_end(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Open the last alert of the same cause again, where its end is recent and was not sent yet.

        A cause that starts and ends every few seconds is thus one alert, not one each time.
        """
        same = and_(self._mine(alerts), alerts.c.kind == row["kind"], alerts.c.subject == row["subject"])
        since = row["last_seen_at"] - REOPEN_WITHIN
        is_open = exists(select(alerts.c.id).where(same, _OPEN))
        unsent = and_(same, alerts.c.resolved_at >= since, alerts.c.resolved_sent_at.is_(None))
        last = connection.execute(select(func.max(alerts.c.id)).where(unsent, ~is_open)).scalar()
        if last is not None:
            connection.execute(update(alerts).where(alerts.c.id == last, ~is_open).values(resolved_at=None))

    def _resolve(self, connection: Connection, these: Any, at: datetime) -> int:
        statement = update(alerts).where(self._mine(alerts), _OPEN, these).values(resolved_at=at)
        return connection.execute(statement).rowcount

    def _where(self, condition: Any) -> list[Alert]:
        statement = select(*_COLUMNS).where(self._mine(alerts), condition).order_by(alerts.c.opened_at, alerts.c.id)
        with self._database.read() as connection:
            return [_alert(dict(row._mapping)) for row in connection.execute(statement)]


def _alert(values: dict[str, Any]) -> Alert:
    return Alert(**(values | {"kind": AlertKind(values["kind"]), "severity": Severity(values["severity"])}))
