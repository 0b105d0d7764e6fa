"""Alerts arrive at real HTTP receivers through Apprise: once, again where lost, never in a storm."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation, Severity
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.commands.alerts.deliver import Delivery, deliver_alerts
from wal_pipeline.commands.alerts.destinations import apprise_destinations, check_destination
from wal_pipeline.errors import SettingsError
from wal_pipeline_tests.support.receiver import SECRET, Receiver

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.stop()


@pytest.fixture
def other() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.stop()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite", "main")
    yield opened
    opened.close()


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def down(catalog: Catalog, store: str = "r2", at: datetime = NOON) -> None:
    catalog.alerts.observe(AlertKind.STORE_DOWN, Observation(store, f"{store}: connection refused"), at)


def test_alert_arrives_once_and_its_end_once(catalog: Catalog, receiver: Receiver) -> None:
    """The opening and the end are told, and nothing again while the cause lasts."""
    destinations = apprise_destinations([receiver.url])
    down(catalog)
    assert deliver_alerts(catalog, destinations, NOON) == Delivery(told=1)
    for minute in range(1, 10):
        down(catalog, at=after(minute))
        assert deliver_alerts(catalog, destinations, after(minute)) == Delivery()
    catalog.alerts.resolve(AlertKind.STORE_DOWN, "r2", after(10))
    assert deliver_alerts(catalog, destinations, after(13)) == Delivery(told=1)
    assert deliver_alerts(catalog, destinations, after(20)) == Delivery()
    assert [(message["title"], message["type"]) for message in receiver.messages] == [
        ("wal-pipeline main: 1 opened", "warning"),
        ("wal-pipeline main: 1 resolved", "success"),
    ]
    assert receiver.bodies == [
        "[warning] store_down r2: r2: connection refused (since 2026-11-22 12:00:00Z)",
        "[resolved] store_down r2: r2: connection refused (from 2026-11-22 12:00:00Z, lasted 0:10:00)",
    ]


def test_many_alerts_are_one_message(catalog: Catalog, receiver: Receiver) -> None:
    """A thousand causes at once make one message, as urgent as the most urgent of them."""
    many = [Observation(f"segment {number}", "missing") for number in range(1000)]
    catalog.alerts.settle(AlertKind.COPY_FAILED, many, NOON)
    catalog.alerts.observe(AlertKind.GAP, Observation("r2", "gap", Severity.CRITICAL), NOON)
    assert deliver_alerts(catalog, apprise_destinations([receiver.url]), NOON) == Delivery(told=1001)
    [message] = receiver.messages
    assert (message["title"], message["type"]) == ("wal-pipeline main: 1001 opened", "failure")
    assert len(message["message"].splitlines()) == 21


def test_messages_keep_their_distance(catalog: Catalog, receiver: Receiver) -> None:
    """What opens soon after a message waits for the next one."""
    destinations = apprise_destinations([receiver.url])
    down(catalog, "r2")
    deliver_alerts(catalog, destinations, NOON)
    down(catalog, "b2")
    assert deliver_alerts(catalog, destinations, after(0.5)) == Delivery(waiting=1)
    assert deliver_alerts(catalog, destinations, after(1)) == Delivery(told=1)
    assert len(receiver.messages) == 2


def test_cause_that_comes_and_goes_is_told_once(catalog: Catalog, receiver: Receiver) -> None:
    """An hour of flapping is one opening and, when it is over, one end."""
    destinations = apprise_destinations([receiver.url])
    for minute in range(60):
        down(catalog, at=after(minute))
        deliver_alerts(catalog, destinations, after(minute + 0.25))
        catalog.alerts.resolve(AlertKind.STORE_DOWN, "r2", after(minute + 0.5))
        deliver_alerts(catalog, destinations, after(minute + 0.75))
    deliver_alerts(catalog, destinations, after(70))
    assert [message["title"][-10:] for message in receiver.messages] == [": 1 opened", "1 resolved"]


def test_message_that_nobody_took_is_told_later(catalog: Catalog, receiver: Receiver) -> None:
    """A refused message is kept, waits longer from try to try, and arrives when the receiver is back."""
    destinations = apprise_destinations([receiver.url])
    receiver.status = 503
    down(catalog)
    failures = {"1 (json)": "1 (json): refused with status 503"}
    assert deliver_alerts(catalog, destinations, NOON) == Delivery(waiting=1, failures=failures)
    receiver.status = 200
    assert deliver_alerts(catalog, destinations, after(0.9)) == Delivery(waiting=1, failures=failures)
    assert deliver_alerts(catalog, destinations, after(1)) == Delivery(told=1)
    assert len(receiver.messages) == 1


def test_one_destination_that_fails_holds_up_no_other(catalog: Catalog, receiver: Receiver, other: Receiver) -> None:
    """The other is told at once and once; the failed one gets all it missed, once, when it answers again."""
    destinations = apprise_destinations([receiver.url, other.url])
    receiver.status = 500
    down(catalog, "r2")
    assert deliver_alerts(catalog, destinations, NOON).told == 1
    down(catalog, "b2")
    assert deliver_alerts(catalog, destinations, after(1.5)).told == 1
    assert len(other.messages) == 2
    receiver.status = 200
    deliver_alerts(catalog, destinations, after(5))
    deliver_alerts(catalog, destinations, after(90))
    assert [message["title"] for message in receiver.messages] == ["wal-pipeline main: 2 opened"]
    assert len(other.messages) == 2


def test_receiver_that_does_not_answer_is_a_failure_and_no_error(catalog: Catalog, receiver: Receiver) -> None:
    """Whoever calls goes on."""
    destinations = apprise_destinations([receiver.url])
    receiver.stop()
    down(catalog)
    delivery = deliver_alerts(catalog, destinations, NOON)
    assert delivery == Delivery(waiting=1, failures={"1 (json)": "1 (json): no connection"})


def test_clock_set_back_silences_nothing(catalog: Catalog, receiver: Receiver) -> None:
    """A last message in the future does not hold up the next."""
    destinations = apprise_destinations([receiver.url])
    down(catalog, "r2")
    deliver_alerts(catalog, destinations, after(6000))
    down(catalog, "b2")
    assert deliver_alerts(catalog, destinations, NOON) == Delivery(told=1)


def test_only_one_process_tells(catalog: Catalog, receiver: Receiver) -> None:
    """While another process delivers, nothing is sent twice; if it was killed, another goes on after a while."""
    down(catalog)
    assert catalog.values.claim("alerts.delivering", NOON, after(3))
    destinations = apprise_destinations([receiver.url])
    assert deliver_alerts(catalog, destinations, after(1)) == Delivery()
    assert deliver_alerts(catalog, destinations, after(3)) == Delivery(told=1)


def test_without_destinations_nothing_is_sent(catalog: Catalog) -> None:
    """Alerts stay in the catalog for who looks."""
    down(catalog)
    assert deliver_alerts(catalog, apprise_destinations([]), NOON) == Delivery()
    assert len(catalog.alerts.active()) == 1


def test_url_that_cannot_be_read_is_named_by_position(caplog: pytest.LogCaptureFixture) -> None:
    """The error and the log say which URL, and nothing of it but its scheme."""
    caplog.set_level(logging.DEBUG)
    good, torn = apprise_destinations(["json://127.0.0.1:1/", f"nosuch://{SECRET}/"])
    assert check_destination(good) == "it can be read; 'wal-pipeline alerts test' sends a message"
    with pytest.raises(SettingsError) as caught:
        check_destination(torn)
    assert caught.value.message == "notification URL 2 (nosuch) cannot be read"
    assert SECRET not in caplog.text + str(caught.value)


@pytest.mark.parametrize("torn", [f"nosuch://{SECRET}/", f"b@{SECRET}.org", ""])
def test_a_torn_url_silences_no_other(catalog: Catalog, receiver: Receiver, torn: str) -> None:
    """The health sensor failed in each tick, and nobody was told of anything."""
    down(catalog)
    delivery = deliver_alerts(catalog, apprise_destinations([torn, receiver.url]), NOON)
    assert delivery.told == 1
    assert len(receiver.messages) == 1
    [(name, reason)] = delivery.failures.items()
    assert reason == f"notification URL {name} cannot be read"
    assert name.startswith("1")
    assert SECRET not in str(catalog.values.get("alerts.delivery"))


@pytest.mark.parametrize("status", [200, 500])
def test_no_secret_of_a_url_is_logged(
    catalog: Catalog, receiver: Receiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in any log at debug level, nor in the catalog, whether the message was taken or not."""
    caplog.set_level(logging.DEBUG)
    receiver.status = status
    down(catalog)
    delivery = deliver_alerts(catalog, apprise_destinations([receiver.url]), NOON)
    state = catalog.values.get("alerts.delivery")
    assert (delivery.told, SECRET in caplog.text + repr(delivery) + repr(state)) == (int(status == 200), False)
