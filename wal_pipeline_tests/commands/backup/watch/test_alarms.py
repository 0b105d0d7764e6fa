"""People are told of a base backup that failed, that waits, or that was taken with faults."""

from datetime import UTC, datetime, timedelta

import pytest

from wal_pipeline.archive.alerts import AlertKind, Severity
from wal_pipeline.archive.format.base_backup.report import BackupReport
from wal_pipeline.archive.records import BaseBackup, DamagedPages
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.base_backups import last_failure, lasting_waits
from wal_pipeline.commands.backup.session import BackupPhase, BackupProgress
from wal_pipeline.commands.backup.watch.alarms import BackupAlarms
from wal_pipeline.commands.backup.watch.waits import BackupWait
from wal_pipeline.errors import BaseBackupError, BaseBackupRunningError
from wal_pipeline_tests.support.manifests import make_manifest

AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)
COPYING = BackupProgress(BackupPhase.COPYING, 1, 2, 1)
WAITING = BackupProgress(BackupPhase.WAITING, 1, 2, 1, BackupWait("PostgreSQL waits for its archiver", AT, True))


@pytest.fixture
def alarms(catalog: Catalog) -> BackupAlarms:
    """The alarms of one base backup."""
    return BackupAlarms(catalog, lambda: AT)


def shown(catalog: Catalog) -> list[tuple[AlertKind, str, Severity, str]]:
    """Return the open alerts."""
    return [(one.kind, one.subject, one.severity, one.message) for one in catalog.alerts.active()]


def backup(*, warnings: tuple[str, ...] = (), pages: tuple[DamagedPages, ...] = ()) -> BaseBackup:
    """Return a record with a report."""
    return make_manifest(report=BackupReport(warnings, pages)).record()


def test_a_failure_opens_an_alert_that_stays_until_one_succeeds(catalog: Catalog, alarms: BackupAlarms) -> None:
    """The message has the way out, and the catalog keeps it for the looks that follow."""
    with pytest.raises(BaseBackupError), alarms.watching():
        raise BaseBackupError("PostgreSQL left 'base/16384' out", hint="Move it back.")
    message = "no base backup was taken at 2026-11-22 17:45:00Z: PostgreSQL left 'base/16384' out; move it back"
    assert shown(catalog) == [(AlertKind.BASE_BACKUP_FAILED, "server", Severity.WARNING, message)]
    assert last_failure(catalog) is not None
    alarms.taken(backup())
    assert (shown(catalog), last_failure(catalog)) == ([], None)


def test_another_base_backup_that_runs_is_no_failure(catalog: Catalog, alarms: BackupAlarms) -> None:
    """That one will succeed."""
    with pytest.raises(BaseBackupRunningError), alarms.watching():
        raise BaseBackupRunningError("another one is running")
    assert (shown(catalog), last_failure(catalog)) == ([], None)


def test_damaged_pages_open_a_critical_alert_with_file_and_block(catalog: Catalog, alarms: BackupAlarms) -> None:
    """One for each file; a later base backup without damage ends them."""
    taken = backup(pages=(DamagedPages("base/5/16384", (3,), 1),))
    alarms.taken(taken)
    [(kind, subject, severity, message)] = shown(catalog)
    assert (kind, subject, severity) == (AlertKind.PAGES_DAMAGED, "base/5/16384", Severity.CRITICAL)
    assert message == (
        f"'base/5/16384' block 3: wrong checksum when base backup '{taken.backup_id}' was taken, which has it as it was"
    )
    alarms.taken(backup())
    assert shown(catalog) == []


def test_warnings_open_an_alert(catalog: Catalog, alarms: BackupAlarms) -> None:
    """The first one is named, the others are counted."""
    taken = backup(warnings=('skipping special file "./pg_hba.conf"', "another"))
    alarms.taken(taken)
    message = f"base backup '{taken.backup_id}': skipping special file \"./pg_hba.conf\" (and 1 more)"
    assert shown(catalog) == [(AlertKind.BASE_BACKUP_WARNING, "server", Severity.WARNING, message)]


def test_a_wait_for_the_archiver_opens_an_alert_that_ends_with_it(catalog: Catalog, alarms: BackupAlarms) -> None:
    """Also where the base backup fails in the end. A look meanwhile keeps it for ten minutes after its last word."""
    seen: list[BackupProgress] = []
    tell = alarms.told(seen.append)
    tell(WAITING)
    message = "a base backup waits: PostgreSQL waits for its archiver"
    assert shown(catalog) == [(AlertKind.BASE_BACKUP_WAITING, "server", Severity.WARNING, message)]
    [kept] = lasting_waits(catalog.alerts.active(), AT + timedelta(minutes=9))
    assert kept.message == message
    assert lasting_waits(catalog.alerts.active(), AT + timedelta(minutes=11)) == []  # its process was killed
    tell(COPYING)
    assert (shown(catalog), seen) == ([], [WAITING, COPYING])
