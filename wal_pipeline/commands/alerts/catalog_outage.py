"""Notifies people while the catalog cannot be written, as on a full disk: at once, each hour, and at the end."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from wal_pipeline.archive.alerts import Alert, AlertKind, Observation, default_severity, notification
from wal_pipeline.commands.alerts.destinations import Destination
from wal_pipeline.text import moment_json

_log = logging.getLogger(__name__)
TELL_EVERY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CatalogOutage:
    """An outage, remembered outside the catalog. ``told_at`` is the last notification, None while there was none."""

    since_at: datetime
    told_at: datetime | None = None

    def as_json(self) -> str:
        """Return the outage as text."""
        return json.dumps({"since_at": moment_json(self.since_at), "told_at": moment_json(self.told_at)})

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """Read the text; return None where it is no outage."""
        try:
            values = json.loads(text or "{}")
            told_at = values["told_at"]
            return cls(datetime.fromisoformat(values["since_at"]), told_at and datetime.fromisoformat(told_at))
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class OutageFile:
    """An outage kept from one process to the next as the two times of an empty file: a full disk takes no byte more."""

    path: Path

    def read(self) -> CatalogOutage | None:
        """Return the outage that was kept; None where there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return CatalogOutage(*(datetime.fromtimestamp(seconds, UTC) for seconds in (status.st_atime, status.st_mtime)))

    def write(self, outage: CatalogOutage | None) -> None:
        """Keep an outage once people were notified. Where even this fails, the next look notifies them again."""
        try:
            if outage is None or outage.told_at is None:
                self.path.unlink(missing_ok=True)
            else:
                self.path.touch()
                os.utime(self.path, (outage.since_at.timestamp(), outage.told_at.timestamp()))
        except OSError as error:
            _log.warning("'%s' cannot be written: %s", self.path, error.strerror)


@dataclass(frozen=True, slots=True)
class OutageDelivery:
    """The result of one call: the outage to remember, and how many alerts were sent. ``failures`` by destination."""

    outage: CatalogOutage | None
    told: int
    failures: Mapping[str, str]


def tell_outage(
    cluster: str,
    observed: Mapping[AlertKind, Sequence[Observation]],
    destinations: Sequence[Destination],
    outage: CatalogOutage | None,
    now: datetime,
) -> OutageDelivery:
    """Send all observations in one message, at most once in ``TELL_EVERY``; a message that failed is sent again."""
    known = outage or CatalogOutage(now)
    if known.told_at is not None and abs(now - known.told_at) < TELL_EVERY:
        return OutageDelivery(known, 0, {})
    alerts = [
        Alert(0, kind, seen.subject, seen.severity or default_severity(kind), seen.message, {}, known.since_at, now, 1)
        for kind, found in observed.items()
        for seen in found
    ]
    failures, is_told = _send(cluster, alerts, destinations)
    return OutageDelivery(replace(known, told_at=now) if is_told else known, len(alerts) if is_told else 0, failures)


def tell_end(
    cluster: str, destinations: Sequence[Destination], outage: CatalogOutage | None, now: datetime
) -> OutageDelivery:
    """Send the end of an outage to people who know of it; do nothing where nobody was notified."""
    if outage is None or outage.told_at is None:
        return OutageDelivery(None, 0, {})
    kind, message = AlertKind.CATALOG_DOWN, "the catalog can be read and written again"
    ended = Alert(0, kind, "catalog", default_severity(kind), message, {}, outage.since_at, now, 1, resolved_at=now)
    failures, is_told = _send(cluster, [ended], destinations)
    return OutageDelivery(None if is_told else outage, int(is_told), failures)


def _send(cluster: str, alerts: Sequence[Alert], destinations: Sequence[Destination]) -> tuple[dict[str, str], bool]:
    message = notification(cluster, alerts)
    answers = {destination.name: destination.send(message) for destination in destinations}
    failures = {name: reason for name, reason in answers.items() if reason is not None}
    return failures, len(failures) < len(answers)
