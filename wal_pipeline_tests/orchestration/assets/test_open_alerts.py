"""Tests the list of what needs a person: the most urgent first, what was acknowledged last, and a sentence above."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from wal_pipeline.archive.alerts import Alert, AlertKind, Severity
from wal_pipeline.orchestration.assets.open_alerts import alerts_metadata, alerts_sentence

NOW = datetime(2026, 11, 29, 14, 5, tzinfo=UTC)
DOWN = Alert(
    1, AlertKind.STORE_DOWN, "b2", Severity.WARNING, "b2: no answer", {}, NOW - timedelta(hours=3), NOW, times_seen=180
)
GAP = replace(DOWN, id=2, kind=AlertKind.GAP, subject="r2", severity=Severity.CRITICAL, opened_at=NOW)
KNOWN = replace(GAP, id=3, acknowledged_at=NOW, acknowledged_by="eva", acknowledged_reason="a base backup follows")


def test_nothing_is_said_plainly() -> None:
    """Without an alert there is no table, and the sentence says so."""
    found = alerts_metadata([], NOW)
    assert {name: value.value for name, value in found.items()} == {"answer": "nothing needs a person", "open": 0}


def test_the_most_urgent_comes_first() -> None:
    """The table has a row for each alert, with the command that mends it."""
    found = alerts_metadata([KNOWN, DOWN, GAP], NOW)
    assert list(found) == ["answer", "alerts", "open"]
    assert found["answer"].value == "2 things need a person: gap r2; store_down b2"
    table = found["alerts"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [(row.data["severity"], row.data["since"]) for row in table.records] == [
        ("critical", "2026-11-29 14:05:00Z (0.0 s)"),
        ("warning", "2026-11-29 11:05:00Z (3 h)"),
        ("critical, acknowledged by eva: a base backup follows", "2026-11-29 14:05:00Z (0.0 s)"),
    ]
    assert (table.records[1].data["what"], table.records[1].data["found"]) == ("store_down b2", "b2: no answer")
    assert table.records[1].data["what mends it"] == "wal-pipeline check"


def test_a_long_list_is_cut_in_the_sentence_only() -> None:
    """A store that lost everything fills the table, and not the first line."""
    assert alerts_sentence([DOWN] * 5) == (
        "5 things need a person: store_down b2; store_down b2; store_down b2; and 2 more"
    )
    assert alerts_sentence([DOWN]) == "1 thing needs a person: store_down b2"
