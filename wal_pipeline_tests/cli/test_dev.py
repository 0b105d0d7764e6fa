"""``wal-pipeline dev`` and the files that it brings along."""

import subprocess
import sys
from pathlib import Path

import wal_pipeline
from wal_pipeline.cli.dev import dagster_command, prepare_home

PROJECT = Path(__file__).parents[2]
PACKAGE = Path(wal_pipeline.__file__).parent


def test_the_package_carries_the_files_of_the_project() -> None:
    """An installed wheel has the same dagster.yaml and workspace.yaml as a checkout."""
    for name in ("dagster.yaml", "workspace.yaml"):
        assert (PACKAGE / name).read_bytes() == (PROJECT / name).read_bytes()


def test_home_is_made_once(tmp_path: Path) -> None:
    """A home that is missing is made with our dagster.yaml; what a person changed there stays."""
    home = tmp_path / "state" / "dagster"
    prepare_home(home)
    assert (home / "dagster.yaml").read_bytes() == (PROJECT / "dagster.yaml").read_bytes()
    assert home.stat().st_mode & 0o777 == 0o700
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    prepare_home(home)
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_dagster_is_started_on_the_given_address_with_our_workspace() -> None:
    """Loopback by default: the web server has no login."""
    command = dagster_command("127.0.0.1", 3000)
    assert command[1:8] == ["-m", "dagster", "dev", "-h", "127.0.0.1", "-p", "3000"]
    assert Path(command[-1]).name == "workspace.yaml"
    assert Path(command[-1]).is_file()


def test_wrong_settings_show_before_dagster_starts(tmp_path: Path) -> None:
    """The error names the setting, and nothing is made."""
    found = subprocess.run(
        [sys.executable, "-m", "wal_pipeline.cli", "dev"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "WAL_PIPELINE_NONSENSE": "1", "DAGSTER_HOME": str(tmp_path / "home")},
        cwd=PROJECT,
    )
    assert found.returncode == 1
    assert "unknown settings: 'WAL_PIPELINE_NONSENSE'" in found.stderr
    assert not (tmp_path / "home").exists()
