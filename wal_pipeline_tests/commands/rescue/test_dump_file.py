"""Tests that a dump takes its name only when it is whole, and that missing rows are seen."""

from pathlib import Path

import pytest

from wal_pipeline.commands.rescue.dump_file import check_output, require_rows, whole_dump
from wal_pipeline.commands.rescue.tables import FoundTable
from wal_pipeline.commands.rescue.wanted import RescueOptionError
from wal_pipeline.errors import RestoreError


def test_a_dump_takes_its_name_at_the_end(tmp_path: Path) -> None:
    """Until then it has another one; nobody but its owner may read it."""
    with whole_dump(tmp_path / "a.dump") as new:
        new.file.write(b"rows")
        assert not (tmp_path / "a.dump").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.dump"]
    assert (tmp_path / "a.dump").stat().st_mode & 0o777 == 0o600


def test_a_dump_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Whatever ended it."""
    with pytest.raises(KeyboardInterrupt), whole_dump(tmp_path / "a.dump"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    """Two rescues into one name: the second one fails, and the first one's file stays."""
    with pytest.raises(RestoreError, match="was made by somebody else meanwhile"), whole_dump(tmp_path / "a.dump"):
        (tmp_path / "a.dump").write_text("theirs")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    """A file that is there, a link that leads nowhere, a folder that is missing."""
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("there", "link", "no/folder"):
        with pytest.raises(RescueOptionError):
            check_output(tmp_path / name)
    check_output(tmp_path / "new")


def test_rows_that_did_not_arrive_are_seen() -> None:
    """Also where the whole table is missing in what arrived."""
    table = FoundTable(1, "public", "Orders", "r")
    require_rows({table.pair: 3}, {table.pair: 3}, [table])
    for arrived in ({table.pair: 2}, {}):
        with pytest.raises(RestoreError, match="rows arrived, expected 3") as error:
            require_rows({table.pair: 3}, arrived, [table])
        assert error.value.message.startswith("of 'public.\"Orders\"' ")
