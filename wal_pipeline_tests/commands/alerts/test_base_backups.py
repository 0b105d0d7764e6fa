"""Causes of alerts about base backups say what happened, and end when it is over."""

from datetime import UTC, datetime, timedelta

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.format.base_backup.report import BackupReport
from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.base_backups import (
    failure_observations,
    forget_failure,
    keep_failure,
    last_failure,
    lasting_waits,
    page_observations,
    wait_observation,
    warning_observations,
)
from wal_pipeline.errors import BaseBackupError
from wal_pipeline_tests.support.manifests import make_manifest

AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)


def test_a_failure_is_kept_until_it_is_moot(catalog: Catalog) -> None:
    """With its moment and the way out, as a later look reads it."""
    assert failure_observations(last_failure(catalog)) == []
    keep_failure(catalog, BaseBackupError("no store took it", hint="Repair the stores."), AT)
    (cause,) = failure_observations(last_failure(catalog))
    assert cause.message == ("no base backup was taken at 2026-11-22 17:45:00Z: no store took it; repair the stores")
    forget_failure(catalog)
    assert last_failure(catalog) is None


def test_no_damaged_file_is_left_unsaid() -> None:
    """Each has a cause of its own; beyond twenty they are counted."""
    pages = tuple(DamagedPages(f"base/5/{number}", (1,), 1) for number in range(16384, 16407))
    backup = make_manifest(report=BackupReport((), pages)).record()
    found = page_observations(backup)
    assert found[0].message == (
        f"'base/5/16384' block 1: wrong checksum when base backup '{backup.backup_id}' was taken, "
        "which has it as it was"
    )
    assert (len(found), found[-1].message) == (21, "3 more files have pages with wrong checksums")
    assert page_observations(None) == []


def test_warnings_of_the_newest_base_backup_are_one_cause() -> None:
    """The first in PostgreSQL's words, the rest counted."""
    backup = make_manifest(report=BackupReport(('skipping special file "./pg_hba.conf"', "another"))).record()
    (cause,) = warning_observations(backup)
    assert cause.message == (f"base backup '{backup.backup_id}': skipping special file \"./pg_hba.conf\" (and 1 more)")
    assert warning_observations(make_manifest().record()) == []


def test_a_wait_that_nobody_tells_any_more_is_over(catalog: Catalog) -> None:
    """A killed base backup ends no alert of its own."""
    catalog.alerts.observe(AlertKind.BASE_BACKUP_WAITING, wait_observation("PostgreSQL waits for its archiver", AT), AT)
    (cause,) = lasting_waits(catalog.alerts.active(), AT + timedelta(minutes=9))
    assert cause.message == "a base backup waits: PostgreSQL waits for its archiver"
    assert lasting_waits(catalog.alerts.active(), AT + timedelta(minutes=11)) == []
