"""Tests how a prediction is said: how long, at which rates, and how these are known."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from wal_pipeline.archive.restore_time.forecast import RestoreForecast, predict_restore
from wal_pipeline.archive.restore_time.measure import MeasuredBy, MeasuredRestore, RestorePhase, RestoreWork
from wal_pipeline.archive.restore_time.words import (
    comparison_text,
    forecast_sentence,
    forecast_text,
    forecast_values,
)

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
MIB = 1 << 20
WORK = RestoreWork(("r2",), 200 * MIB, 400 * MIB, 100 * MIB)
SECONDS = {
    RestorePhase.PLAN: 1.0,
    RestorePhase.DOWNLOAD: 2.0,
    RestorePhase.VERIFY: 1.0,
    RestorePhase.FINISH: 1.0,
    RestorePhase.START: 1.0,
    RestorePhase.REPLAY: 5.0,
    RestorePhase.OPEN: 1.0,
}
DRILL = MeasuredRestore("db1", MeasuredBy.DRILL, NOW - timedelta(days=3), WORK, SECONDS)


def test_the_sentence_names_rates_store_and_age() -> None:
    """The whole of it, so that a person can judge it."""
    restore = replace(DRILL, by=MeasuredBy.RESTORE, finished_at=NOW - timedelta(days=40))
    found = predict_restore(WORK, [DRILL, DRILL, restore], "db1")
    assert forecast_sentence(found, NOW) == (
        "about 12 s: plan 1.0 s, download 2.0 s (100.0 MiB/s from r2), verify 1.0 s (400.0 MiB/s), finish 1.0 s "
        "(400.0 MiB/s), start 1.0 s, replay 5.0 s (20.0 MiB/s from r2), open 1.0 s; by 1 drill and 1 restore on this "
        "host, the newest 3 days ago"
    )
    assert forecast_text(found) == "12 s"


def test_without_a_measure_it_is_not_known() -> None:
    """And the sentence says what would measure it, or why nobody could look."""
    found = predict_restore(WORK, [], "db1")
    assert forecast_text(found) == "not known"
    assert forecast_sentence(found, NOW) == (
        "not known: no restore and no drill was measured yet: 'wal-pipeline drill' measures them"
    )
    unread = RestoreForecast(WORK, "db1", unread="the records of earlier restores cannot be read: disk on fire")
    assert forecast_sentence(unread, NOW) == ("not known: the records of earlier restores cannot be read: disk on fire")
    assert forecast_values(unread)["seconds"] is None
    assert forecast_values(unread)["not_known"] == "the records of earlier restores cannot be read: disk on fire"


def test_a_guess_says_from_what() -> None:
    """Another host's rates, and another store's."""
    there = predict_restore(WORK, [replace(DRILL, host="db2")], "db1")
    assert forecast_text(there) == "12 s (a guess)"
    assert forecast_sentence(there, NOW).endswith(
        "; a guess, as nothing was measured on this host: by 1 drill on 'db2', the newest 3 days ago"
    )
    other = predict_restore(replace(WORK, stores=("b2",)), [DRILL], "db1")
    assert forecast_text(other) == "12 s (a guess)"
    assert "download 2.0 s (100.0 MiB/s from r2)" in forecast_sentence(other, NOW)
    assert forecast_sentence(other, NOW).endswith("; a guess, as no download and replay from b2 was measured")


def test_what_lacks_makes_it_the_least() -> None:
    """A restore that nobody started did not show how fast WAL is replayed."""
    seconds = {
        phase: value for phase, value in SECONDS.items() if phase not in (RestorePhase.REPLAY, RestorePhase.OPEN)
    }
    found = predict_restore(WORK, [replace(DRILL, seconds=seconds)], "db1")
    assert forecast_text(found) == "at least 6.0 s"
    assert forecast_sentence(found, NOW).startswith("at least 6.0 s: plan 1.0 s, ")
    assert "; replay, open were never measured; by 1 drill" in forecast_sentence(found, NOW)
    assert (forecast_values(found)["is_at_least"], forecast_values(found)["phases"]["replay"]["seconds"]) == (
        True,
        None,
    )


def test_far_more_than_was_measured_is_said() -> None:
    """The one who reads it knows that a rate may not hold."""
    found = predict_restore(replace(WORK, wal_bytes=5000 * MIB), [DRILL], "db1")
    assert forecast_sentence(found, NOW).endswith("; replay was measured for 100.0 MiB at most, and is 4.9 GiB here")


def test_values_for_json() -> None:
    """Seconds, bytes a second, and from where each is known."""
    values = forecast_values(predict_restore(WORK, [DRILL], "db1"))
    assert (values["seconds"], values["is_guess"], values["is_at_least"], values["not_known"]) == (
        12.0,
        False,
        False,
        None,
    )
    assert (values["measured"], values["newest_measured_at"]) == (1, "2026-11-26T12:00:00+00:00")
    assert values["phases"]["download"] == {
        "seconds": 2.0,
        "bytes": 200 * MIB,
        "bytes_per_second": 100 * MIB,
        "stores": ["r2"],
        "hosts": ["db1"],
        "source": "here",
    }


def test_a_comparison() -> None:
    """The difference as a share of what was predicted."""
    assert comparison_text(50.0, 55.0) == "predicted 50 s, took 55 s (+10 %)"
    assert comparison_text(200.0, 100.0) == "predicted 3 min, took 100 s (-50 %)"
