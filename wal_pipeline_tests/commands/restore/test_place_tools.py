"""PostgreSQL's programs are run by a restore: their words are read, and none is waited for without end."""

from pathlib import Path

import pytest

from wal_pipeline.commands.restore.place import begin_keeping, run_tool
from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL
from wal_pipeline.errors import RestoreError


def script(folder: Path, lines: str) -> list[str]:
    """Return the command line of a program that does what the lines of shell say."""
    path = folder / "pg_tool"
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o700)
    return [str(path), str(folder)]


def test_warnings_of_a_program_that_ended_well_are_not_thrown_away(tmp_path: Path) -> None:
    """They come back, without its other words."""
    command = script(tmp_path, "echo 'pg_tool: warning: only some backups have checksums' >&2; echo done")
    assert run_tool(command, "it failed") == ("pg_tool: warning: only some backups have checksums",)


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    """With its status, and its last words."""
    with pytest.raises(RestoreError) as caught:
        run_tool(script(tmp_path, "echo 'pg_tool: error: no room' >&2; exit 3"), "the chain cannot be combined")
    assert caught.value.message == "the chain cannot be combined: 'pg_tool' ended with 3:\npg_tool: error: no room"


def test_a_program_that_stands_still_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """It reads nothing and writes nothing: it is ended, and the error says for what it waited."""
    with pytest.raises(RestoreError) as caught:
        run_tool(script(tmp_path, "exec sleep 600"), "it cannot be verified", stall_seconds=0.5)
    assert caught.value.message == (
        "it cannot be verified: 'pg_tool' has neither read nor written for 0.5 s, and was ended"
    )
    assert caught.value.hint == f"It waits for the disk below '{tmp_path}': is it there, and does it answer?"


def test_an_old_cluster_whose_files_stay_cannot_be_started(tmp_path: Path) -> None:
    """Its control file is held back, its WAL and its links go, and its tables stay."""
    pgdata, space = tmp_path / "pgdata", tmp_path / "space"
    for name in ("global", "base/5", "pg_wal", "pg_tblspc"):
        (pgdata / name).mkdir(parents=True)
    for name in (PG_CONTROL, "base/5/16384", "pg_wal/000000010000000000000001"):
        (pgdata / name).write_text("old")
    (space / "PG_18_1").mkdir(parents=True)
    (pgdata / "pg_tblspc/16390").symlink_to(space)
    begin_keeping(pgdata)
    found = {str(path.relative_to(pgdata)) for path in pgdata.rglob("*")}
    assert found == {"global", HELD_BACK, "base", "base/5", "base/5/16384", "pg_tblspc"}
    assert (space / "PG_18_1").is_dir()
    begin_keeping(pgdata)
    assert (pgdata / HELD_BACK).read_text() == "old"


def test_a_control_file_behind_a_link_is_not_touched(tmp_path: Path) -> None:
    """The link goes: without it nothing can be started either."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/pg_control").write_text("another's")
    pgdata = tmp_path / "pgdata"
    pgdata.mkdir()
    (pgdata / "global").symlink_to(tmp_path / "elsewhere")
    begin_keeping(pgdata)
    assert list(pgdata.iterdir()) == []
    assert (tmp_path / "elsewhere/pg_control").read_text() == "another's"
