"""Tests what the asset of the clones says."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from wal_pipeline.commands.clone.record import CloneCondition, CloneState
from wal_pipeline.orchestration.assets.accident_desk.clones import clone_sentence, clones_metadata, list_sentence

AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)
ONE = CloneState(
    "before-drop",
    Path("/c/before-drop"),
    CloneCondition.READ_WRITE,
    Path("/c/before-drop/socket"),
    5433,
    ends_at=AT,
    target="the end of the archive",
    reached_commit_at=AT,
    connect="psql -h /c/before-drop/socket -p 5433 -U postgres -d postgres",
)


def test_a_clone_that_was_made_says_how_to_connect() -> None:
    """After the sentence comes the line to type, then the moments; the table has all that stand."""
    answer = clone_sentence(ONE, "made")
    assert answer == (
        "clone 'before-drop' is made and read-write, as of the end of the archive; it ends and is removed at "
        "2026-11-22 17:45:00Z"
    )
    busy = CloneState("other", Path("/c/other"), CloneCondition.BUSY, notes=("is being made\n",))
    found = clones_metadata(answer, [ONE, busy], state=ONE, seconds=75)
    assert list(found) == [
        *("answer", "connect", "folder", "last commit", "ends at", "took", "clones", "clones that stand"),
    ]
    table = found["clones"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [list(record.data.values()) for record in table.records] == [
        ["before-drop", "read-write", "the end of the archive", "2026-11-22 17:45:00Z", ONE.connect],
        ["other", "busy", "-", "-", "is being made\\n"],
    ]
    assert found["clones that stand"].value == 2


def test_a_clone_that_listens_names_its_port() -> None:
    """Only such a one can be reached without its socket."""
    found = clones_metadata("", [], state=replace(ONE, listens=True))
    assert found["port"].value == "127.0.0.1, port 5433; a role gets in with its password"


def test_none_is_said() -> None:
    """An empty list says so, and what was removed."""
    assert list_sentence([]) == "no clone stands"
    assert list_sentence([ONE]) == "1 clone beside the cluster"
    found = clones_metadata(list_sentence([]), [], removed=("clone 'a' was over",))
    assert {name: value.value for name, value in found.items()} == {
        "answer": "no clone stands",
        "removed": "clone 'a' was over",
        "clones that stand": 0,
    }
