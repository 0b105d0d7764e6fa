"""A clone's record comes back as it was written, and anything else is refused by its path."""

from pathlib import Path

import pytest

from wal_pipeline.commands.clone.record import CloneCondition, CloneRecord, CloneState
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.clone_records import clone_record


@pytest.mark.parametrize("reached", [True, False])
def test_a_record_comes_back(reached: bool) -> None:
    """With its moments, also where the clone has replayed no commit."""
    record = clone_record() if reached else clone_record(reached_commit_at=None, reached_lsn=None)
    assert CloneRecord.from_json(record.to_json(), Path("clone.json")) == record


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", clone_record().to_json().replace(b"+00:00", b""), b'{"name": "x"}', b"\xff"],
    ids=["empty", "half", "list", "nothing", "no zone", "less", "no text"],
)
def test_what_is_no_record(data: bytes) -> None:
    """Half a record is never read as a whole one: the clone's end would be another."""
    with pytest.raises(RestoreError, match="is not a clone's record"):
        CloneRecord.from_json(data, Path("clone.json"))


def test_a_state_tells_the_line_to_type() -> None:
    """One line, for a shell, also with a space in the folder's path."""
    state = CloneState.of(clone_record(), Path("/a b/shop"), Path("/a b/shop/socket"), CloneCondition.READ_ONLY, 17)
    assert state.connect == "psql -h '/a b/shop/socket' -p 54321 -U postgres -d postgres"
    values = state.values()
    assert (values["name"], values["state"], values["pid"]) == ("shop", "read-only", 17)
    assert values["ends_at"] == "2026-11-29T20:00:00+00:00"
