"""How a message about alerts reads."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.alerts import (
    MAX_LINES,
    Alert,
    AlertKind,
    Notification,
    Severity,
    default_severity,
    notification,
)

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DOWN = Alert(1, AlertKind.STORE_DOWN, "r2", Severity.WARNING, "r2: connection refused", {}, NOON, NOON, 3)
GAP = Alert(2, AlertKind.GAP, "b2", Severity.CRITICAL, "b2: a segment is missing", {}, NOON, NOON, 1)


def test_message_tells_the_most_urgent_first_and_ends_last() -> None:
    """An alert says since when, an end how long it lasted."""
    ended = replace(DOWN, id=3, subject="b2", resolved_at=NOON + timedelta(hours=1, seconds=2))
    assert notification("main", [ended, DOWN, GAP]) == Notification(
        title="wal-pipeline main: 2 opened, 1 resolved",
        body=(
            "[critical] gap b2: b2: a segment is missing (since 2026-11-22 12:00:00Z)\n"
            "[warning] store_down r2: r2: connection refused (since 2026-11-22 12:00:00Z)\n"
            "[resolved] store_down b2: r2: connection refused (from 2026-11-22 12:00:00Z, lasted 1:00:02)"
        ),
        severity=Severity.CRITICAL,
        resolved=False,
    )


def test_message_of_ends_alone_is_good_news() -> None:
    """Nothing is urgent any more."""
    message = notification("main", [replace(DOWN, resolved_at=NOON)])
    assert (message.title, message.severity, message.resolved) == (
        "wal-pipeline main: 1 resolved",
        Severity.INFO,
        True,
    )


@given(st.integers(1, 3 * MAX_LINES))
def test_message_is_bounded(count: int) -> None:
    """However many alerts open at once, the message stays short and says how many it leaves out."""
    lines = notification("main", [replace(DOWN, id=number) for number in range(count)]).body.splitlines()
    assert len(lines) == min(count, MAX_LINES + 1)
    if count > MAX_LINES:
        assert lines[-1] == f"and {count - MAX_LINES} more: see 'wal-pipeline alerts'"


def test_every_kind_has_a_severity() -> None:
    """What loses data is critical, a pause and a clone's end are for information, the rest are warnings."""
    informing = {kind for kind in AlertKind if default_severity(kind) is Severity.INFO}
    assert informing == {AlertKind.PAUSED, AlertKind.CLONE_ENDED}
    assert default_severity(AlertKind.GAP) is Severity.CRITICAL
    assert default_severity(AlertKind.STORE_DOWN) is Severity.WARNING
