"""Times that several moments may be meant by."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from wal_pipeline.cli.group import run
from wal_pipeline.cli.time_readings import refuse_ambiguous
from wal_pipeline.errors import RecoveryTargetError

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/St_Johns"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The host's time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def readings(text: str) -> list[str]:
    """Return the values that are offered."""
    with pytest.raises(RecoveryTargetError) as caught:
        refuse_ambiguous("--to-time", text, NOW)
    lines = (caught.value.hint or "").splitlines()[1:]
    return [line.split("'")[1] for line in lines]


def test_a_time_of_day_is_not_taken_for_one_of_its_two_moments(zone: str) -> None:
    """The last such moment in UTC and here; where that is one, the one before it."""
    expected = {
        "UTC": ["2026-11-28 14:05:00+00", "2026-11-27 14:05:00+00"],
        "Europe/Berlin": ["2026-11-28 14:05:00+00", "2026-11-28 14:05:00+01"],
        "America/St_Johns": ["2026-11-28 14:05:00+00", "2026-11-28 14:05:00-03:30"],
    }
    assert readings("14:05") == expected[zone]
    assert readings("11:30:15")[0] == "2026-11-29 11:30:15+00"


def test_a_moment_without_its_zone_is_read_in_the_zone_of_its_own_day(zone: str) -> None:
    """In June another offset holds than in November."""
    here = {"UTC": [], "Europe/Berlin": ["2026-06-22 17:45:00+02"], "America/St_Johns": ["2026-06-22 17:45:00-02:30"]}
    assert readings("2026-06-22 17:45") == ["2026-06-22 17:45:00+00", *here[zone]]


@pytest.mark.parametrize("text", ["2026-11-22 17:45:00+00", "2026-11-22T17:45Z", "now", ""])
def test_what_has_one_reading_or_none_is_left_to_others(text: str) -> None:
    """A whole moment is taken; words that are no time are refused as before."""
    refuse_ambiguous("--to-time", text, NOW)


def test_restore_offers_the_readings_before_it_asks_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 1, and no settings are needed for the answer."""
    assert run(["restore", "--pgdata", "/x", "--to-time", "14:05"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "ERROR: the recovery target '14:05' has no day\nHINT: Which moment is meant? Type one of these:"
    )
    assert error.count("\n  --to-time '") == 2
