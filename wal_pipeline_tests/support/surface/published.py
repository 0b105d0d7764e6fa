"""Lists the paths of our modules and files that stand in other people's files and servers' settings."""

import re
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import yaml

from wal_pipeline_tests.support.surface.running import PROJECT, SmallArchive

PACKAGE = PROJECT / "wal_pipeline"
SCRIPT = PACKAGE / "commands" / "fetch_ask.py"  # in the restore_command of standbys and of recoveries under way
_NAMES = {
    "wal_pipeline": "__version__",
    "wal_pipeline.definitions": "defs",
    "wal_pipeline.worker": "main",
    "wal_pipeline.orchestration.warm_launcher": "WarmRunLauncher",
    "wal_pipeline.orchestration.runs.backfill_queue": "BackfillQueue",
}
_ABSENT = ["false", "--exit-absent", "100", "00000002.history", "pg_wal/RECOVERYHISTORY"]


def names() -> dict[str, Any]:
    """Return the modules that others name, with what each of them must have."""
    return {module: {name: callable(resolve_name(f"{module}:{name}"))} for module, name in _NAMES.items()}


def launcher() -> dict[str, Any]:
    """Return what stands below ``config`` in an operator's dagster.yaml with warm workers."""
    entry = yaml.safe_load((PROJECT / "deploy" / "dagster-workers.yaml").read_text())["run_launcher"]
    kind = resolve_name(f"{entry['module']}:{entry['class']}")
    return {"module": entry["module"], "class": entry["class"], "config": sorted(kind.config_type())}


def package() -> dict[str, Any]:
    """Return what the wheel gives: its commands, extras and data files. Where a command leads is our own affair."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    scripts = project["project"]["scripts"]
    return {
        "name": project["project"]["name"],
        "python": project["project"]["requires-python"],
        "commands": {name: callable(resolve_name(target)) for name, target in scripts.items()},
        "extras": sorted(project["project"]["optional-dependencies"]),
        "data": {path.name: yaml.safe_load(path.read_text()) for path in sorted(PACKAGE.glob("*.yaml"))},
    }


def programs(archive: SmallArchive) -> dict[str, Any]:
    """Start each module that others start with ``python -m``; return its exit code and first line."""
    calls = (["wal_pipeline.cli", "--version"], ["wal_pipeline.cli.archive_get", "--help"], ["wal_pipeline.worker"])
    return {" ".join(call): _started(archive, call) for call in calls}


def _started(archive: SmallArchive, call: list[str]) -> dict[str, Any]:
    done = archive.python("-m", *call)
    found = re.search(r"^(usage: |ERROR: |wal-pipeline)[^\[\n]*", done.stdout + done.stderr, re.MULTILINE)
    return {"exit_code": done.returncode, "says": archive.without_paths(found[0]) if found else None}


def script(archive: SmallArchive) -> dict[str, Any]:
    """Call the script by its path as a server does: with nothing to ask, with an answer, and without arguments."""
    call = ["-I", "-S", str(SCRIPT)]
    with TemporaryDirectory() as folder:
        alone = archive.python(*call, folder, "echo", "FILE", "DESTINATION")
        with _answering(Path(folder, "socket"), b"absent\n\n") as questions:
            answered = archive.python(*call, folder, *_ABSENT)
    return {
        "path": SCRIPT.relative_to(PROJECT).as_posix(),
        "without a process to ask": {"exit_code": alone.returncode, "becomes": alone.stdout.strip()},
        "with proof of absence": {"exit_code": answered.returncode, "asks": [_shown(one) for one in questions]},
        "without arguments": {"exit_code": archive.python(*call).returncode},
    }


def _shown(question: bytes) -> str:
    return re.sub("^[0-9a-f]{64} ", "FINGERPRINT ", question.decode())


@contextmanager
def _answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Answer one question on a Unix socket."""
    questions: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.settimeout(20)
        listening.listen(1)
        thread = Thread(target=_answer, args=(listening, answer, questions))
        thread.start()
        yield questions
        thread.join()


def _answer(listening: socket.socket, answer: bytes, questions: list[bytes]) -> None:
    try:
        connection, _ = listening.accept()
    except TimeoutError:  # nobody asked: the list of questions says so
        return
    with connection:
        questions.append(connection.recv(4096))
        connection.sendall(answer)
