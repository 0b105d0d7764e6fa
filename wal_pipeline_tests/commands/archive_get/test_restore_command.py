"""The generated shell line, run by sh as PostgreSQL does, and what the program imports."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from wal_pipeline.commands.archive_get.restore_command import prefetch_folder, shell_line
from wal_pipeline_tests.support.restore_archive import NAME, run_line


@pytest.fixture
def pgdata(tmp_path: Path) -> Path:
    """A folder with pg_wal, below a name that needs quotes."""
    folder = tmp_path / "it's 100% $HOME"
    (folder / "pg_wal").mkdir(parents=True)
    return folder


def program(pgdata: Path, body: str) -> list[str]:
    """Return a program that runs ``body`` and notes its arguments."""
    script = pgdata / "pro gram"
    script.write_text(f'#!/bin/sh\necho "$@" > {shlex.quote(str(pgdata / "called"))}\n{body}\n')
    script.chmod(0o755)
    return [str(script), "--option=100% a'b"]


def test_a_prefetched_file_is_moved_without_the_program(pgdata: Path) -> None:
    """The file is taken from the folder, through all quotes and percent signs."""
    folder = prefetch_folder(pgdata, 7).path
    folder.mkdir(parents=True)
    (folder / NAME).write_text("wal")
    assert run_line(shell_line(program(pgdata, "exit 1"), folder), pgdata) == 0
    assert (pgdata / "pg_wal/RECOVERYXLOG").read_text() == "wal"
    assert not (folder / NAME).exists()
    assert not (pgdata / "called").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_nothing_is_taken_from_a_folder_of_another_user(pgdata: Path) -> None:
    """Who made the folder first would choose what is replayed: the program is asked."""
    folder = prefetch_folder(pgdata, 7).path
    folder.mkdir(parents=True)
    (folder / NAME).write_text("forged")
    os.chown(folder, 4711, 4711)
    assert run_line(shell_line(program(pgdata, "exit 0"), folder), pgdata) == 0
    assert (pgdata / "called").exists()
    assert not (pgdata / "pg_wal/RECOVERYXLOG").exists()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("exit 0", 0),
        ("exit 100", 1),
        ("exit 1", 200),
        ("exit 2", 200),
        ("exit 99", 200),
        ("exit 120", 200),
        ("exit 125", 200),
        ("exit 126", 126),
        ("exit 200", 200),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ],
)
@pytest.mark.parametrize("prefetch", [True, False])
def test_only_proven_absence_becomes_1(pgdata: Path, body: str, code: int, prefetch: bool) -> None:
    """Whatever else the program does ends above 125; a signal stays what it is."""
    folder = pgdata.parent / "nothing here" if prefetch else None
    assert run_line(shell_line(program(pgdata, body), folder), pgdata) == code
    called = (pgdata / "called").read_text().strip()
    assert called == f"--option=100% a'b --exit-absent 100 {NAME} pg_wal/RECOVERYXLOG"


def test_a_missing_program_is_fatal(pgdata: Path) -> None:
    """127 is above 125."""
    assert run_line(shell_line(["/nowhere/program"], None), pgdata) == 127


def test_a_python_that_cannot_import_is_fatal(pgdata: Path) -> None:
    """Python's own exit code 1 is not taken for absence."""
    assert run_line(shell_line([sys.executable, "-P", "-m", "no_such_module"], None), pgdata) == 200


def test_folders_of_other_clusters_are_apart(tmp_path: Path) -> None:
    """The system identifier and PGDATA's name are in the folder's name; a link to PGDATA leads to the same one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert prefetch_folder(tmp_path / "real", 7).path == tmp_path / ".wal-pipeline-prefetch" / "real-7"
    assert prefetch_folder(tmp_path / "link", 7).path == prefetch_folder(tmp_path / "real", 7).path
    assert prefetch_folder(tmp_path / "real", 8).path != prefetch_folder(tmp_path / "real", 7).path


def test_archive_get_imports_nothing_heavy(tmp_path: Path) -> None:
    """Neither Dagster nor a database or data library is loaded, and no boto3 for a prefetched file."""
    folder = prefetch_folder(tmp_path, 7, tmp_path / "ahead").path
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(b"wal")
    code = (
        "import os, sys\n"
        "import wal_pipeline.cli.archive_get as program\n"
        "import wal_pipeline.commands.archive_get.wal_source\n"
        "leave = os._exit\n"
        "def report(code):\n"
        "    heavy = {'dagster', 'pandas', 'sqlalchemy', 'psycopg', 'click', 'rich', 'boto3', 'pydantic'}\n"
        "    print(code, sorted(heavy & set(sys.modules)), flush=True)\n"
        "    leave(0)\n"
        "os._exit = report\n"
        f"program.main(['--system-identifier=7', '--prefetch-dir={tmp_path / 'ahead'}', *sys.argv[1:]])\n"
    )

    def run(*arguments: str, **environment: str) -> str:
        return subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=60,
        ).stdout.splitlines()[-1]

    assert run(NAME, "out") == "0 []"
    r2 = {f"R2_{name}": "x" for name in ("BUCKET_NAME", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    answer = run(
        NAME, "out", "--retry-seconds=0", WAL_PIPELINE_STORES="r2", R2_ENDPOINT_URL="https://127.0.0.1:9", **r2
    )
    assert answer == "200 ['boto3', 'pydantic']"
