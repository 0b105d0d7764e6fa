"""Says what is wrong with base backups as causes of alerts: for the process that takes one, and for each look after it.

The catalog keeps the last failure, so that its alert stays until a base backup succeeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from wal_pipeline.archive.alerts import Alert, AlertKind, Observation
from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.text import moment_utc

_FAILURE_KEY: Final = "base_backup.last_failure"
SUBJECT: Final = "server"
_WAIT_LASTS: Final = timedelta(minutes=10)
_MOST_FILES: Final = 20
_UNTIL: Final = "until_at"


@dataclass(frozen=True, slots=True)
class BackupFailure:
    """The last base backup that failed, where none succeeded since."""

    message: str
    failed_at: datetime


def last_failure(catalog: Catalog) -> BackupFailure | None:
    """Return the last failure that no base backup has made moot. Raises: CatalogError."""
    kept = catalog.values.get(_FAILURE_KEY)
    return None if kept is None else BackupFailure(kept["message"], datetime.fromisoformat(kept["failed_at"]))


def failure_observations(failure: BackupFailure | None) -> list[Observation]:
    """Return the cause of the alert about a base backup that failed."""
    if failure is None:
        return []
    return [Observation(SUBJECT, f"no base backup was taken at {moment_utc(failure.failed_at)}: {failure.message}")]


def page_observations(backup: BaseBackup | None) -> list[Observation]:
    """Return the causes of alerts about damaged pages: each file of the newest base backup that has some."""
    pages = () if backup is None else backup.damaged_pages
    name = "" if backup is None else backup.backup_id
    found = [
        Observation(one.file, f"{one}: wrong checksum when base backup '{name}' was taken, which has it as it was")
        for one in pages[:_MOST_FILES]
    ]
    more = len(pages) - len(found)
    return [*found, Observation("more", f"{more} more files have pages with wrong checksums")] if more else found


def warning_observations(backup: BaseBackup | None) -> list[Observation]:
    """Return the cause of the alert about what PostgreSQL said of the newest base backup."""
    if backup is None or not backup.warnings:
        return []
    more = f" (and {len(backup.warnings) - 1} more)" if len(backup.warnings) > 1 else ""
    return [Observation(SUBJECT, f"base backup '{backup.backup_id}': {backup.warnings[0]}{more}")]


def keep_failure(catalog: Catalog, error: WalPipelineError, now: datetime) -> BackupFailure:
    """Keep why a base backup failed, with the way out. Raises: CatalogError."""
    hint = f"; {error.hint[0].lower()}{error.hint[1:].rstrip('.')}" if error.hint else ""
    failure = BackupFailure(f"{error.message}{hint}", now)
    catalog.values.put(_FAILURE_KEY, {"message": failure.message, "failed_at": now.isoformat()})
    return failure


def forget_failure(catalog: Catalog) -> None:
    """Forget the last failure, because a base backup succeeded. Raises: CatalogError."""
    catalog.values.remove(_FAILURE_KEY)


def wait_observation(text: str, now: datetime) -> Observation:
    """Return the cause of the alert that a running base backup waits. It must be told again within ten minutes."""
    details = {_UNTIL: (now + _WAIT_LASTS).isoformat()}
    return Observation(SUBJECT, f"a base backup waits: {text}", details=details)


def lasting_waits(alerts: Sequence[Alert], now: datetime) -> list[Observation]:
    """Return the causes that a running base backup told lately: a killed one ends no alert of its own."""
    return [
        Observation(alert.subject, alert.message, alert.severity, alert.details)
        for alert in alerts
        if alert.kind is AlertKind.BASE_BACKUP_WAITING and _lasts(alert, now)
    ]


def _lasts(alert: Alert, now: datetime) -> bool:
    until = alert.details.get(_UNTIL)
    return until is not None and now < datetime.fromisoformat(until)
