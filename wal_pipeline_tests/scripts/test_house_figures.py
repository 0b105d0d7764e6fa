"""The script measures any checkout, with nothing but Python."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wal_pipeline_tests.support.tiny_checkout import tiny_checkout

SCRIPT = Path(__file__).parents[2] / "scripts" / "house_figures.py"
BEFORE = {
    "wal_pipeline/commands/a.py": '"""Does A."""\nimport wal_pipeline.commands.b\n\n\nclass Drill: ...\n',
    "wal_pipeline/commands/b.py": (
        '"""Does A."""\n\n\ndef late():\n    import wal_pipeline.commands.a\n    assert late  # noqa: S101\n'
    ),
    "wal_pipeline/drill.py": '"""Does C."""\n\n\nclass Drill: ...\n\n\ndef other(): ...\n',
    "wal_pipeline_tests/test_drill.py": "",
}
AFTER = {"wal_pipeline/commands/b.py": '"""Does B."""\n\n\ndef late(): ...\n'}


def run(*arguments: str) -> str:
    """Run the script without the packages of this environment."""
    command = [sys.executable, "-S", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def before(tmp_path: Path) -> str:
    """A small checkout with something for each figure to count."""
    return str(tiny_checkout(tmp_path / "before", BEFORE).root)


def test_figures_as_json(before: str) -> None:
    """Each figure has its value and, where things were counted, the things."""
    figures = json.loads(run(before, "--json"))[before]
    assert {name: figure["value"] for name, figure in figures.items()} == {
        "modules, with __init__.py": 3,
        "lines": 18,
        "median module, lines": 6,
        "longest module, lines": "7 (wal_pipeline/drill.py)",
        "largest folder without sub-folders, modules": "2 (wal_pipeline/commands)",
        "folders with more than 14 modules": 0,
        "functions and methods": 2,
        "median function, lines": 1,
        "95th percentile of functions, lines": 3,
        "longest function, lines": "3 (wal_pipeline/commands/b.py:4 late)",
        "imports between modules": 2,
        "modules that import more than 15 others": 0,
        "import statements inside functions": 1,
        "import circles at run time": 1,
        "import circles only with TYPE_CHECKING imports": 0,
        "commands: rooms": 2,
        "commands: arrows between rooms": 2,
        "commands: circles of rooms": 1,
        "orchestration: rooms": 0,
        "orchestration: arrows between rooms": 0,
        "orchestration: circles of rooms": 0,
        "public class names with several meanings": 1,
        "public function names with several meanings": 0,
        "assert statements": 1,
        "assert statements with # noqa: S101": 1,
        "first lines of docstrings that stand in several places": 1,
        "modules without a mirrored test": 2,
    }
    assert figures["public class names with several meanings"]["items"] == [
        "Drill: wal_pipeline/commands/a.py, wal_pipeline/drill.py"
    ]


def test_two_checkouts_stand_side_by_side(before: str, tmp_path: Path) -> None:
    """Two checkouts make two columns, and what was counted stands below, apart for each."""
    after = str(tiny_checkout(tmp_path / "after", BEFORE | AFTER).root)
    lines = run(before, after).splitlines()
    assert lines[:3] == ["| figure | before | after |", "|---|---:|---:|", "| modules, with __init__.py | 3 | 3 |"]
    assert "| import circles at run time | 1 | 0 |" in lines
    assert "### Import circles at run time (before)" in lines
    assert "### Import circles at run time (after)" not in lines


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    """A misspelt folder has no figures: the script says so."""
    refused = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"error: '{tmp_path}' is no checkout: it has no folder wal_pipeline" in refused.stderr
