"""The alert about a clone that ended with somebody in it says who was, and ends by itself."""

from datetime import UTC, datetime, timedelta

from wal_pipeline.archive.alerts import AlertKind, Severity
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.clones import end_observation, lasting_ends

AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)


def test_it_lasts_for_a_day(catalog: Catalog) -> None:
    """A later look finds the same cause until then, and none after it."""
    catalog.alerts.observe(AlertKind.CLONE_ENDED, end_observation("shop", ["ada in shop (psql)"], AT), AT)
    [alert] = catalog.alerts.active()
    assert (alert.subject, alert.severity) == ("shop", Severity.INFO)
    assert alert.message == (
        "the clone reached its end at 2026-11-22 17:45:00Z and was removed with 1 session connected: ada in shop (psql)"
    )
    [kept] = lasting_ends(catalog.alerts.active(), AT + timedelta(hours=23))
    assert (kept.subject, kept.message, kept.details) == ("shop", alert.message, alert.details)
    assert lasting_ends(catalog.alerts.active(), AT + timedelta(hours=25)) == []


def test_a_crowd_is_counted() -> None:
    """The first five are named; the details have all."""
    found = end_observation("shop", [f"role{number} in shop" for number in range(8)], AT)
    assert found.message.endswith(
        "8 sessions connected: " + ", ".join(f"role{n} in shop" for n in range(5)) + " and 3 more"
    )
    assert len(found.details["connected"]) == 8
