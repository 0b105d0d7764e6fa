"""The table has one open alert per cause, which is sent once when it opens and once when it ends."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from wal_pipeline.archive.alerts import Alert, AlertKind, Observation, Severity
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.errors import CatalogError
from wal_pipeline_tests.support.catalog_records import NOON

DOWN = Observation("r2", "r2: connection refused", details={"tries": 3})
LATER = NOON + timedelta(minutes=5)


def only(catalog: Catalog) -> Alert:
    [alert] = catalog.alerts.all()
    return alert


def test_alert_is_opened_once_and_refreshed(catalog: Catalog) -> None:
    """The same cause seen again is the same alert, with the newest message."""
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON)
    catalog.alerts.observe(AlertKind.STORE_DOWN, replace(DOWN, message="r2: timed out"), LATER)
    alert = only(catalog)
    assert alert == Alert(
        id=alert.id,
        kind=AlertKind.STORE_DOWN,
        subject="r2",
        severity=Severity.WARNING,
        message="r2: timed out",
        details={"tries": 3},
        opened_at=NOON,
        last_seen_at=LATER,
        times_seen=2,
    )


def test_subjects_and_kinds_are_apart(catalog: Catalog) -> None:
    """Two stores that are down are two alerts."""
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON)
    catalog.alerts.observe(AlertKind.STORE_DOWN, replace(DOWN, subject="b2"), NOON)
    catalog.alerts.observe(AlertKind.COPY_FAILED, DOWN, NOON)
    assert len(catalog.alerts.active()) == 3


def test_resolved_alert_opens_anew(catalog: Catalog) -> None:
    """The same cause long after its end is a new alert; resolving what is not open changes nothing."""
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON)
    assert catalog.alerts.resolve(AlertKind.STORE_DOWN, "r2", LATER)
    assert not catalog.alerts.resolve(AlertKind.STORE_DOWN, "r2", LATER)
    assert catalog.alerts.active() == []
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, LATER + timedelta(hours=1))
    assert [alert.resolved_at for alert in catalog.alerts.all()] == [LATER, None]
    assert len(catalog.alerts.all(since=LATER + timedelta(seconds=1))) == 1


def test_cause_that_comes_and_goes_is_one_alert(catalog: Catalog) -> None:
    """An end that was not sent is taken back when the cause returns at once."""
    for turn in range(5):
        catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON + timedelta(seconds=20 * turn))
        catalog.alerts.resolve(AlertKind.STORE_DOWN, "r2", NOON + timedelta(seconds=20 * turn + 10))
    assert (only(catalog).times_seen, only(catalog).opened_at) == (5, NOON)
    assert only(catalog).resolved_at == NOON + timedelta(seconds=90)


def test_end_that_was_told_is_not_taken_back(catalog: Catalog) -> None:
    """People who read that it is over also read that it is back."""
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON)
    catalog.alerts.resolve(AlertKind.STORE_DOWN, "r2", NOON)
    catalog.alerts.mark_sent(catalog.alerts.unsent(NOON), NOON)
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, LATER)
    assert [alert.is_active for alert in catalog.alerts.all()] == [False, True]
    assert [alert.is_active for alert in catalog.alerts.unsent(NOON)] == [True]


def test_old_alert_of_which_nobody_was_told_is_no_news(catalog: Catalog) -> None:
    """Notifications that are set up later do not send alerts that ended long before."""
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON)
    catalog.alerts.resolve(AlertKind.STORE_DOWN, "r2", LATER)
    assert catalog.alerts.unsent(LATER + timedelta(seconds=1)) == []
    assert len(catalog.alerts.unsent(LATER)) == 1


def test_settling_resolves_what_is_not_seen_any_more(catalog: Catalog) -> None:
    """Alerts of a kind follow what was observed; other kinds are left alone."""
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON)
    gaps = [Observation("1 to 3", "gap"), Observation("5 to 6", "gap")]
    catalog.alerts.settle(AlertKind.GAP, gaps, NOON)
    catalog.alerts.settle(AlertKind.GAP, gaps[1:], LATER)
    assert [(alert.kind, alert.subject) for alert in catalog.alerts.active()] == [
        (AlertKind.STORE_DOWN, "r2"),
        (AlertKind.GAP, "5 to 6"),
    ]
    catalog.alerts.settle(AlertKind.GAP, [], LATER)
    assert [alert.kind for alert in catalog.alerts.active()] == [AlertKind.STORE_DOWN]


def test_each_alert_is_told_when_it_opens_and_when_it_ends(catalog: Catalog) -> None:
    """An alert that was sent is not sent again."""
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON)
    opened = catalog.alerts.unsent(NOON)
    catalog.alerts.resolve(AlertKind.STORE_DOWN, "r2", LATER)
    catalog.alerts.mark_sent(opened, LATER)
    ended = catalog.alerts.unsent(NOON)
    assert [alert.is_active for alert in (*opened, *ended)] == [True, False]
    catalog.alerts.mark_sent(ended, LATER)
    assert catalog.alerts.unsent(NOON) == []
    assert (only(catalog).opened_sent_at, only(catalog).resolved_sent_at) == (LATER, LATER)


def test_more_urgent_alert_is_told_again(catalog: Catalog) -> None:
    """A warning that becomes critical is sent once more; one that becomes less urgent is not."""
    catalog.alerts.observe(AlertKind.SPOOL_GROWING, Observation("spool", "10 GB"), NOON)
    catalog.alerts.mark_sent(catalog.alerts.unsent(NOON), NOON)
    catalog.alerts.observe(AlertKind.SPOOL_GROWING, Observation("spool", "90 GB", Severity.CRITICAL), LATER)
    assert [alert.severity for alert in catalog.alerts.unsent(NOON)] == [Severity.CRITICAL]
    catalog.alerts.mark_sent(catalog.alerts.unsent(NOON), LATER)
    catalog.alerts.observe(AlertKind.SPOOL_GROWING, Observation("spool", "9 GB"), LATER)
    assert catalog.alerts.unsent(NOON) == []


def test_acknowledged_alert_stays_open(catalog: Catalog) -> None:
    """A person's name and reason are kept; the alert ends when its cause does."""
    catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON)
    acknowledged = catalog.alerts.acknowledge(only(catalog).id, "ann", "provider's outage", LATER)
    assert catalog.alerts.active() == [acknowledged]
    assert acknowledged.acknowledged_at == LATER
    assert (acknowledged.acknowledged_by, acknowledged.acknowledged_reason) == ("ann", "provider's outage")


def test_unknown_alert_cannot_be_acknowledged(catalog: Catalog) -> None:
    """A wrong number is an error that names it."""
    with pytest.raises(CatalogError) as caught:
        catalog.alerts.acknowledge(999_999, "ann", "", NOON)
    assert str(caught.value) == "no alert 999999 is open\nHINT: See 'wal-pipeline alerts' for the open ones."


def test_observers_at_the_same_time_open_one_alert(catalog: Catalog) -> None:
    """The database, not the order of calls, keeps an alert single."""
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: catalog.alerts.observe(AlertKind.STORE_DOWN, DOWN, NOON), range(20)):
            pass
    assert only(catalog).times_seen == 20
