"""Tests that a warm command does what ``python -m wal_pipeline.cli`` does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.postgres_install import postgres_user
from wal_pipeline_tests.support.warm_commands import run_warm


def settings(folder: Path) -> dict[str, str]:
    """Return an environment with one local store in ``folder``, and nothing of this process's but the path."""
    return {
        "PATH": os.environ["PATH"],
        "TZ": "Europe/Berlin",
        "WAL_PIPELINE_STORES": "local",
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(folder / "local"),
        "WAL_PIPELINE_STATE_DIR": str(folder / "state"),
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [(("restore", "--help"), 0), (("alerts", "list", "--json"), 0), (("verify",), 1), (("verifi",), 2)],
    ids=["help", "answer", "error", "misspelt"],
)
def test_it_says_the_same(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    """The exit code, the output and the errors are the same, also a name in the help and a hint."""
    command = [sys.executable, "-P", "-m", "wal_pipeline.cli", *words]
    env = settings(tmp_path)
    cold = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd="/", env=env)
    warm = run_warm(*words, env=env)
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    assert warm.returncode == code
    assert warm.stdout + warm.stderr


def test_it_has_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees the given variables alone, and a wrong one is refused by its name."""
    monkeypatch.setenv("WAL_PIPELINE_STORES", "nonsense")
    assert run_warm("alerts", "list", env=settings(tmp_path)).returncode == 0
    wrong = run_warm("alerts", "list", env={**settings(tmp_path), "WAL_PIPELINE_NONSENSE": "1"})
    assert (wrong.returncode, "WAL_PIPELINE_NONSENSE" in wrong.stderr) == (1, True)


def test_it_runs_as_postgresqls_user(postgres_folder: Path) -> None:
    """The files that it makes belong to that user."""
    assert run_warm("alerts", "list", env=settings(postgres_folder), as_postgres=True).returncode == 0
    assert {path.lstat().st_uid for path in postgres_folder.rglob("*")} == {postgres_user().uid}


def test_it_has_that_users_rights(postgres_folder: Path, tmp_path: Path) -> None:
    """A folder that is closed to that user stays closed, unless setpriv opens it too."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    words, env = ("report", "--output", str(closed / "report.html")), settings(postgres_folder)
    command = postgres_user().wrap([sys.executable, "-P", "-m", "wal_pipeline.cli", *words])
    cold = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd="/", env=env)
    warm = run_warm(*words, env=env, as_postgres=True)
    assert (warm.returncode, warm.stderr) == (cold.returncode, cold.stderr)


def test_a_command_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """The time limit is said, and no process is left."""
    with pytest.raises(subprocess.TimeoutExpired):
        run_warm("pause", "--help", env=settings(tmp_path), timeout_seconds=0)
