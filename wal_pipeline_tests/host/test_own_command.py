"""How the program is typed here."""

import sys
from pathlib import Path

import pytest

from wal_pipeline.host.own_command import own_command, this_command, typeable, with_other_value

BESIDE = str(Path(sys.executable).with_name("wal-pipeline"))


def test_a_hint_names_no_program_that_the_shell_does_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off PATH, and behind another program of that name, it is its path."""
    monkeypatch.setenv("PATH", "/usr/bin")
    assert typeable("type 'wal-pipeline verify --repair'") == f"type '{BESIDE} verify --repair'"


def test_another_installation_on_the_path_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have other settings and another version; a link to this one is this one."""
    other = tmp_path / "wal-pipeline"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert own_command() == BESIDE
    other.unlink()
    other.symlink_to(BESIDE)
    assert own_command() == "wal-pipeline"


def test_the_settings_file_that_was_named_is_named_again() -> None:
    """Quoted for the shell; a text without a command stays as it is."""
    assert (
        typeable("see 'wal-pipeline alerts'", "/etc/a b.env") == "see 'wal-pipeline --env-file '/etc/a b.env' alerts'"
    )
    assert typeable("r2: wal-pipeline-s3v4") == "r2: wal-pipeline-s3v4"


def test_the_same_command_with_another_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """In both forms of an option; in another program's process only the option is told."""
    for given in (["--to-time", "14:05"], ["--to-time=14:05"]):
        monkeypatch.setattr(sys, "argv", [BESIDE, "restore", *given, "--plan"])
        assert with_other_value("--to-time", "14:05", "x y").endswith(
            ("--to-time 'x y' --plan", "'--to-time=x y' --plan")
        )
    monkeypatch.setattr(sys, "argv", ["/usr/bin/dagster", "--to-time", "14:05"])
    assert this_command() is None
    assert with_other_value("--to-time", "14:05", "x y") == "--to-time 'x y'"
