"""PostgreSQL's programs are run by a restore: their words are read, and none is waited for without end."""

from pathlib import Path

import pytest

from wal_pipeline.commands.restore.place import run_tool
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
