"""The small script: what it imports, what it repeats of the program, and its old path."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wal_pipeline
from wal_pipeline.cli import archive_get
from wal_pipeline.commands.archive_get import prefetch_client, restore_command
from wal_pipeline.commands.archive_get.prefetch_client import fingerprint
from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.prefetch_server import PrefetchServer
from wal_pipeline.commands.archive_get.restore_command import program, shell_line
from wal_pipeline.commands.archive_get.wal_source import FetchedWal
from wal_pipeline.settings import ENV_FILE_VARIABLE
from wal_pipeline.wal.names import WalFileName

NAME = "000000010000000000000003"
ABSENT = "00000002.history"
ENVIRONMENT = {"PATH": os.environ["PATH"]}
CLIENT = Path(prefetch_client.__file__)
OLD_PATH = Path(wal_pipeline.__file__).parent / "commands" / "fetch_ask.py"
_REPORT = (
    "print(sorted({'wal_pipeline', 'site', 'pathlib', 'typing', 'subprocess', 'argparse', 'runpy'} & set(sys.modules)))"
)


def fetch(name: WalFileName) -> FetchedWal | None:
    """Return one file; the other is absent."""
    return FetchedWal(name, b"wal", "b2", "key") if name.name == NAME else None


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A program that notes its arguments and ends with 77."""
    script = tmp_path / "program"
    script.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(tmp_path / "called"))}\nexit 77\n')
    script.chmod(0o755)
    return [str(script), "--option"]


@pytest.fixture
def folder(tmp_path: Path, words: list[str]) -> Iterator[Path]:
    """A folder whose process answers."""
    made = PrefetchFolder(tmp_path / "ahead")
    made.make()
    with PrefetchServer(made, fetch, fingerprint([*words, "--exit-absent", "100"], ENVIRONMENT)):
        yield made.path


def run(script: Path, folder: Path, words: list[str], name: str, cwd: Path) -> int:
    """Run the script as the restore command does, and return the exit code."""
    command = [sys.executable, "-I", "-S", str(script), str(folder), *words, "--exit-absent", "100", name, "out"]
    return subprocess.run(command, check=False, cwd=cwd, env=ENVIRONMENT, timeout=30).returncode


@pytest.mark.parametrize("script", [CLIENT, OLD_PATH], ids=["client", "old path"])
def test_an_answer_is_the_exit_code(script: Path, folder: Path, words: list[str], tmp_path: Path) -> None:
    """Delivered, and absent: running recoveries have the old path in their postgresql.auto.conf."""
    assert run(script, folder, words, NAME, tmp_path) == 0
    assert (tmp_path / "out").read_bytes() == b"wal"
    assert run(script, folder, words, ABSENT, tmp_path) == 100
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("script", [CLIENT, OLD_PATH], ids=["client", "old path"])
def test_without_an_answer_the_program_is_executed(script: Path, words: list[str], tmp_path: Path) -> None:
    """With its own arguments, and its own exit code."""
    assert run(script, tmp_path / "none", words, NAME, tmp_path) == 77
    assert (tmp_path / "called").read_text() == f"--option --exit-absent 100 {NAME} out\n"


@pytest.mark.parametrize("script", [CLIENT, OLD_PATH], ids=["client", "old path"])
def test_the_script_imports_little(script: Path) -> None:
    """It starts in a hundredth of a second because it needs a little of the standard library alone."""
    code = (
        "import os, sys\n"
        f"def report(*_): {_REPORT}; sys.stdout.flush(); leave(0)\n"
        "leave = os._exit\n"
        "os.execvp = report\n"
        f"sys.argv = [{str(script)!r}, '/nowhere', 'true', '--exit-absent', '100', 'x', 'y']\n"
        f"with open({str(script)!r}) as file: code = file.read()\n"
        f"exec(compile(code, {str(script)!r}, 'exec'), {{'__name__': '__main__', '__file__': {str(script)!r}}})\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_the_line_has_the_new_path(tmp_path: Path) -> None:
    """The old one is only for recoveries that run already."""
    line = shell_line(program(7, env_file=None), tmp_path)
    assert f" -I -S {CLIENT} " in line
    assert CLIENT.name == "prefetch_client.py"
    assert "fetch_ask" not in line


def test_the_words_that_the_script_repeats_are_the_programs() -> None:
    """It can import nothing of ours, and the command must end rightly where an import fails."""
    assert prefetch_client._EXIT_FAILED == archive_get._EXIT_FAILED == restore_command.EXIT_FAILED == 200
    assert prefetch_client._EXIT_INTERRUPTED == archive_get._EXIT_INTERRUPTED == 130
    assert archive_get._EXIT_DELIVERED == restore_command.EXIT_DELIVERED == 0
    assert prefetch_client._ENV_FILE_VARIABLE == ENV_FILE_VARIABLE
    [option] = [word for word in program(7, env_file=Path("/settings")) if word.endswith("=/settings")]
    assert option == f"{prefetch_client._ENV_FILE_OPTION}/settings"


def test_the_script_and_the_program_say_their_name_alike(capsys: pytest.CaptureFixture[str]) -> None:
    """Both write to the server's log."""
    archive_get.say("note")
    said = capsys.readouterr().err
    assert said == "wal-pipeline archive-get: note\n"
    assert said.removesuffix("note\n") in CLIENT.read_text()
