"""The demo keeps its promises, and leaves nothing running."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.dagster_instance import PROJECT, clean_environment
from testbed.postgres_install import owned_folder

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "demo"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a demo's data, in one that PostgreSQL's user can reach."""
    home = owned_folder("demo")
    yield home / "data"
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.left_out
@pytest.mark.timeout(600)
def test_once_proves_every_copy_and_a_restore(folder: Path) -> None:
    """stdout has one JSON object: 20 segments through the sensor, good copies, an empty spool, the table back.

    It comes back twice: beside the living server, which stays up, and with all of its cluster elsewhere. Then the host
    is lost with its disk, and no commit is missing that was older than the interval and a second.
    """
    done = subprocess.run(
        [*COMMAND, "--once", "--json", "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
        env=clean_environment(),
        cwd=PROJECT,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["segments"] >= 20
    assert answer["copies_verified"] == {"r2": answer["segments"], "b2": answer["segments"]}
    assert answer["spool_left"] == 0
    assert 0 < answer["lag_seconds_p50"] <= answer["lag_seconds_p99"]
    assert answer["ui_url"].startswith("http://127.0.0.1:")
    assert answer["accident_xid"] > 3
    assert answer["find_seconds"] > 0
    assert answer["rescue_seconds"] > 0
    assert answer["rows_back"] == 10_000
    assert answer["server_stayed_up"] is True
    assert answer["table_back"] is True
    assert answer["rto_seconds"] > 0
    assert answer["restored_to"].startswith("20")
    assert 0 <= answer["newest_lost_commit_age_seconds"] <= answer["rpo_seconds_after_loss"]
    assert answer["rpo_seconds_after_loss"] <= answer["ship_interval_seconds"] + 1
    assert 0 <= answer["commits_lost_after_loss"] < answer["commits_acknowledged"]
    assert answer["commits_never_made"] == 0
    assert answer["rto_seconds_after_loss"] > 0
    assert not (folder / "postgres").exists()
    assert done.stderr.endswith(f"everything is stopped; the data lies in {folder}\n")
    assert processes_below(folder) == []


@pytest.mark.left_out
def test_control_c_stops_everything(folder: Path) -> None:
    """A SIGINT during the start ends the demo well, and none of its servers outlives it."""
    demo = subprocess.Popen(
        [*COMMAND, "--folder", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        cwd=PROJECT,
        start_new_session=True,
    )
    assert demo.stderr is not None
    for line in demo.stderr:
        if line.endswith(" setup --apply\n"):
            break
    assert processes_below(folder, wait_seconds=0)
    demo.send_signal(signal.SIGINT)
    rest = demo.stderr.read()
    assert demo.wait(60) == 0, rest
    assert rest.endswith(f"interrupted\neverything is stopped; the data lies in {folder}\n")
    assert processes_below(folder) == []


def test_a_folder_of_somebody_else_is_left_alone(folder: Path) -> None:
    """The demo does not empty a folder that it did not make."""
    folder.mkdir()
    (folder / "thesis.txt").write_text("final")
    done = subprocess.run(
        [*COMMAND, "--once", "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=clean_environment(),
        cwd=PROJECT,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"ERROR: folder '{folder}' is not empty and was not made by the demo\n"
        "HINT: Give an empty folder, or one that does not exist.\n"
    )
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def processes_below(folder: Path, *, wait_seconds: float = 30) -> list[str]:
    """Return the processes whose command line or environment names the folder; they get a moment to be gone.

    What fetches ahead of a recovery may be in a request to a store that is gone by now.
    """
    deadline = time.monotonic() + wait_seconds
    while found := [text for text in map(_described, Path("/proc").glob("[0-9]*")) if str(folder) in text]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return found


def _described(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace")
