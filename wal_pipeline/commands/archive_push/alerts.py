"""Turns an archiving run's events into alerts, opened once and resolved when the cause is gone."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.archive_push.events import (
    ArchiveEvent,
    CopyFailed,
    CopyVerified,
    FileQuarantined,
    FileReleased,
    FileSkipped,
)
from wal_pipeline.errors import CatalogError

FAILURES_UNTIL_ALERT: Final = 3
_log = logging.getLogger(__name__)
_KINDS: Final = frozenset({AlertKind.STORE_DOWN, AlertKind.COPY_FAILED, AlertKind.QUARANTINE})


class ArchiveAlerts:
    """Opens and resolves alerts for the events of one archiving run.

    A store that failed ``failures_until_alert`` times without taking a file is down. A copy that failed as often while
    its store takes others has an alert of its own. A file in quarantine, or one that cannot be read, moved or removed,
    opens one at once. Alerts of earlier runs are resolved too: by a copy that was stored, by a file that was released.
    """

    def __init__(
        self, catalog: Catalog, clock: Callable[[], datetime], *, failures_until_alert: int = FAILURES_UNTIL_ALERT
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._failures_until_alert = failures_until_alert
        self._open: set[tuple[AlertKind, str]] | None = None

    def note(self, event: ArchiveEvent) -> None:
        """Take one event. A catalog that fails is logged: an alert that cannot be kept must not stop the archive."""
        try:
            self._note(event)
        except CatalogError as error:
            _log.warning("an alert of an archiving run could not be recorded: %s", error)

    def _note(self, event: ArchiveEvent) -> None:
        match event:
            case CopyFailed():
                self._failed(event)
            case CopyVerified(is_new=True):
                self._resolve(AlertKind.STORE_DOWN, event.copy.store)
                self._resolve(AlertKind.COPY_FAILED, copy_subject(event.file.name, event.copy.store))
            case FileQuarantined():
                details = {"reason": event.reason.value, "path": str(event.path)}
                message = f"{event.message}; the file is in quarantine as '{event.path}'"
                self._observe(AlertKind.QUARANTINE, Observation(event.name, message, details=details))
            case FileSkipped(needs_help=True):
                self._observe(AlertKind.QUARANTINE, Observation(event.name, f"{event.message}; it stays in the spool"))
            case FileReleased():
                self._resolve(AlertKind.QUARANTINE, event.file.name)

    def _failed(self, event: CopyFailed) -> None:
        if event.store_failures >= self._failures_until_alert:
            details = {"failures": event.store_failures}
            self._observe(AlertKind.STORE_DOWN, Observation(event.store, event.message, details=details))
        elif event.tries >= self._failures_until_alert:
            subject = copy_subject(event.name, event.store)
            details = {"tries": event.tries}
            self._observe(AlertKind.COPY_FAILED, Observation(subject, event.message, details=details))

    def _observe(self, kind: AlertKind, seen: Observation) -> None:
        self._catalog.alerts.observe(kind, seen, self._clock())
        self._opened().add((kind, seen.subject))

    def _resolve(self, kind: AlertKind, subject: str) -> None:
        """Resolve an alert that is open. The open ones are read once: a run may store thousands of copies."""
        if (kind, subject) in self._opened():
            self._catalog.alerts.resolve(kind, subject, self._clock())
            self._opened().discard((kind, subject))

    def _opened(self) -> set[tuple[AlertKind, str]]:
        if self._open is None:
            active = self._catalog.alerts.active()
            self._open = {(alert.kind, alert.subject) for alert in active if alert.kind in _KINDS}
        return self._open


def copy_subject(name: str, store: str) -> str:
    """Return the subject of alerts about one file's copy on one store."""
    return f"{name} on {store}"
