"""Tests what a person reads of a drill first: from where the cluster was restored, how fast, and what failed."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from wal_pipeline.commands.drill.result import DrillResult
from wal_pipeline.orchestration.assets.drill import drill_metadata, drill_sentence

AT = datetime(2026, 11, 29, 4, 45, tzinfo=UTC)
PASSED = DrillResult(
    "r2",
    AT,
    AT + timedelta(minutes=3),
    reached_commit_at=AT,
    segments=12,
    downloaded_bytes=3 * 2**20,
    rto_seconds=83.23456,
    seconds={"download": 12.98765},
    not_proven=("tablespace 'fast'",),
)
FAILED = DrillResult("b2", AT, AT + timedelta(minutes=1), error="b2: no answer")


def test_the_sentence_says_what_failed_too() -> None:
    """A drill that passed from one store only is no success."""
    assert drill_sentence([PASSED]) == "the cluster was restored from r2 in 83 s"
    assert drill_sentence([PASSED, FAILED]) == (
        "the cluster was restored from r2 in 83 s; from b2 it failed: b2: no answer"
    )
    assert drill_sentence([FAILED]) == "from b2 it failed: b2: no answer"


def test_the_rows_are_in_the_order_of_need() -> None:
    """First the sentence and the table, then what went wrong, then rounded numbers."""
    found = drill_metadata([PASSED, FAILED])
    assert list(found) == [
        "answer",
        "stores",
        "r2: not proven",
        "b2: error",
        "r2: RTO seconds",
        "r2: downloaded MiB",
        "r2: download seconds",
        "b2: downloaded MiB",
    ]
    assert (found["r2: RTO seconds"].value, found["r2: download seconds"].value) == (83.2, 13.0)
    table = found["stores"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [row.data["result"] for row in table.records] == ["passed", "failed"]
    assert table.records[0].data["to"] == "2026-11-29 04:45:00Z"
