"""Tests the architecture: dependencies point inward, and quick commands import little."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import wal_pipeline

PACKAGE = Path(wal_pipeline.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))
OUTSIDE = {"os", "io", "time", "socket", "subprocess", "shutil", "tempfile", "threading", "asyncio", "http", "urllib"}


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(str(node.module))
    return found


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def loaded_by(code: str) -> set[str]:
    """Return the top-level packages that are loaded after some code ran in a new interpreter."""
    return {name.split(".")[0] for name in modules_loaded_by(code)}


def modules_loaded_by(code: str) -> set[str]:
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120, cwd=PACKAGE.parent
    )
    return set(json.loads(finished.stdout.splitlines()[-1]))


def test_the_layers_hold() -> None:
    """import-linter's contracts, as pyproject.toml has them, are kept."""
    program = Path(sys.executable).with_name("lint-imports")
    finished = subprocess.run(
        [str(program), "--no-cache"], capture_output=True, text=True, check=False, timeout=200, cwd=PACKAGE.parent
    )
    assert finished.returncode == 0, finished.stdout
    assert " 0 broken" in finished.stdout


def test_only_orchestration_imports_dagster() -> None:
    """Dagster starts in seconds: no command of a person or of PostgreSQL waits for it."""
    found = {relative(path) for path in MODULES if {name.split(".")[0] for name in imports(path)} & {"dagster"}}
    assert found <= {name for name in found if name.startswith("orchestration/")} | {"definitions.py", "worker.py"}
    assert found


def test_only_one_file_imports_boto3() -> None:
    """Only one file imports the provider's client."""
    found = {
        relative(path) for path in MODULES if {name.split(".")[0] for name in imports(path)} & {"boto3", "botocore"}
    }
    assert found == {"stores/s3/client.py"}


@pytest.mark.parametrize("folder", ["wal", "archive"])
def test_the_core_is_pure(folder: str) -> None:
    """The code that decides opens no file, starts no program and reads no clock."""
    for path in (PACKAGE / folder).glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & OUTSIDE, relative(path)
        text = path.read_text()
        for clock in ("datetime.now", "utcnow", "date.today", "open(", "os.environ"):
            assert clock not in text, f"{relative(path)} has {clock}"


def test_archive_get_is_quick() -> None:
    """The restore command that PostgreSQL starts for each file loads no database, no table and no Dagster."""
    loaded = loaded_by("import wal_pipeline.cli.archive_get")
    assert "wal_pipeline" in loaded
    assert not loaded & {"sqlalchemy", "pandas", "numpy", "dagster", "rich", "psycopg", "apprise", "jinja2"}


def test_an_archiving_runs_process_starts_quickly() -> None:
    """Every run's process loads the definitions, without the modules of restores, drills, verifications and reports."""
    loaded = modules_loaded_by(
        "import wal_pipeline.definitions\nwal_pipeline.definitions.defs().get_repository_def().get_job('archive_wal')"
    )
    assert not {name.split(".")[0] for name in loaded} & {"boto3", "pandas", "numpy", "psycopg", "apprise", "jinja2"}
    rooms = {name.split(".")[2] for name in loaded if name.startswith("wal_pipeline.commands.")}
    assert rooms <= {"archive_push", "copies", "audit", "pause"}
    assert "archive_push" in rooms


def test_the_command_line_is_quick() -> None:
    """Help, and every command's module, load no Dagster; help alone loads no S3 client and no database either."""
    helped = loaded_by("from wal_pipeline.cli.group import run\nassert run(['--version']) == 0")
    assert not helped & {"dagster", "boto3", "sqlalchemy", "pandas"}
    commands = loaded_by("from wal_pipeline.cli.registry import commands\nassert len(commands()) > 5")
    assert "dagster" not in commands


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_small_and_says_what_it_is_for(path: Path) -> None:
    """At most 400 lines, and a first line that names the module's purpose."""
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "no docstring"
    first = docstring.splitlines()[0]
    assert first.endswith((".", ":", "?")), first


def test_annotations_are_not_postponed_where_dagster_reads_them() -> None:
    """Postponed annotations break Dagster's config parameters."""
    for path in [*(PACKAGE / "orchestration").glob("*.py"), PACKAGE / "definitions.py"]:
        assert "__future__" not in imports(path), relative(path)


def test_every_test_says_what_it_is_about() -> None:
    """Each test function has a sentence of its own."""
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
