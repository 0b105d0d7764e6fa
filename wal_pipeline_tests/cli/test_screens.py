"""What every command prints: on narrow terminals, in pipes, in poor encodings, and where nothing was looked at."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.dagster_instance import clean_environment
from wal_pipeline.cli.group import run
from wal_pipeline.cli.registry import COMMANDS
from wal_pipeline_tests.support.health_scene import SYSTEM, HealthScene, name, scene_in_settings
from wal_pipeline_tests.support.terminal import Terminal

TYPED = [
    *([command, "--help"] for command in COMMANDS),
    ["--help"],
    ["status"],
    ["status", "--check"],
    ["list"],
    ["list", "--base-backups"],
    ["gaps"],
    ["alerts"],
    ["cost"],
    ["cost", "--wal-per-day", "1GB"],
    ["report"],
    ["metrics"],
    ["check"],
    ["setup"],
    ["pause", "--reason", "Wartung \u00e4\u4e2d"],
    ["archive"],
    ["resume"],
    ["verify"],
    ["expire"],
    ["drill"],
    ["relations"],
    ["relations", "--keep"],
    ["backup"],
    ["catalog", "rebuild"],
    ["restore", "--pgdata", "/x", "--plan"],
    ["staus"],
]
CLAIMS = ("no gaps", "NO RECOVERY", "cannot be recovered", "take a base backup", "\nall is right", "files: 0", "$0")
SETTINGS = {
    "none": {},
    "half": {"R2_ACCOUNT_ID": "a", "R2_BUCKET_NAME": "b"},
    "unreachable": {
        **{
            f"{store}_{key}": "x"
            for store in ("R2", "B2")
            for key in ("BUCKET_NAME", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
        },
        "R2_ENDPOINT_URL": "https://127.0.0.1:9",
        "B2_ENDPOINT_URL": "https://127.0.0.1:9",
        "B2_REGION": "x",
    },
}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthScene]:
    """An archive with a gap, a quarantined file and an alert."""
    made = scene_in_settings(tmp_path, monkeypatch)
    made.catalog.files.remove_copy(SYSTEM, [name(5)], "b2")
    made.quarantine(3)
    yield made
    made.catalog.close()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("columns", [80, 100, None])
def test_no_terminal_is_too_narrow_or_too_poor(
    scene: HealthScene, monkeypatch: pytest.MonkeyPatch, columns: int | None, encoding: str
) -> None:
    """Nothing raises, no byte is of another encoding, no table is cut at the edge."""
    terminal = Terminal(columns, encoding)
    for arguments in TYPED:
        typed = terminal.run(arguments, monkeypatch)
        assert typed.code in (0, 1, 2), (arguments, typed.lines)
        assert typed.lines, arguments
        text = "\n".join(typed.lines)
        assert "\u00e2\u0094" not in text, arguments  # the bytes of UTF-8 in Latin-1
        assert "Traceback" not in text, arguments
        if encoding == "utf-8":
            assert "\u2026" not in text, arguments  # nothing is cut


def test_a_verdict_is_not_told_by_its_colour_alone(scene: HealthScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """In ASCII too each has a mark of its own."""
    text = "\n".join(Terminal(80, "utf-8").run(["status"], monkeypatch).lines)
    assert {"\u25cf", "\u25b2", "\u25a0"} <= set(text)
    lines = Terminal(80, "ascii").run(["status"], monkeypatch).lines
    marks = {line.split()[-1] for line in lines if line.startswith(("archive lag", "storage", "active alerts"))}
    assert marks == {"*", "!", "X"}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("command", ["status", "status --check", "list", "gaps", "cost", "report", "verify", "expire"])
def test_what_nobody_looked_at_is_not_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: str, command: str
) -> None:
    """No records and no store: the command fails, says so, and names the settings that are missing."""
    monkeypatch.chdir(tmp_path)
    for variable, value in {"WAL_PIPELINE_CONNINFO": f"host={tmp_path} port=1", **SETTINGS[settings]}.items():
        monkeypatch.setenv(variable, value)
    assert run(command.split()) == (3 if "--check" in command else 1)
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert not [claim for claim in CLAIMS if claim in said], said
    if settings == "half" and "--check" not in command:
        assert "R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY, B2_REGION, B2_BUCKET_NAME" in said
    if command in ("status", "list", "gaps", "cost", "report"):
        assert "this host has no records of cluster 'main'" in said
        assert "'wal-pipeline catalog rebuild' asks the stores" in said


def test_metrics_leave_out_what_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A zero would be a claim about the archive."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAL_PIPELINE_CONNINFO", f"host={tmp_path} port=1")
    assert run(["metrics"]) == 0
    out = capsys.readouterr().out
    assert "wal_pipeline_up" in out
    assert not [word for word in ("can_recover", "_files{", "wal_bytes", "store_gaps", "base_backups") if word in out]


def test_a_store_that_does_not_answer_has_no_number_of_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rebuild says that it was not read, not that it holds nothing."""
    monkeypatch.chdir(tmp_path)
    for variable, value in SETTINGS["unreachable"].items():
        monkeypatch.setenv(variable, value)
    assert run(["catalog", "rebuild"]) == 1
    out = capsys.readouterr().out
    assert out.count(": not read to its end\n") == 2
    assert "copies 0" not in out


def test_a_process_whose_output_is_ascii_does_not_end_in_an_error(scene: HealthScene) -> None:
    """The real program, as cron and a C locale run it."""
    environment = {**clean_environment(), **os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for arguments in (["status"], ["list"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "wal_pipeline.cli", *arguments], capture_output=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        done.stdout.decode("ascii")
        assert b"Traceback" not in done.stderr
