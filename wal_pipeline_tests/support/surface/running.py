"""Runs the program as a person does, on a small archive in a folder, and keeps what does not depend on the machine."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from wal_pipeline_tests.support.segments import (
    SYSTEM_IDENTIFIER,
    name_of,
    segment_bytes,
    spool_segments,
)

PROJECT = Path(__file__).parents[3]
VALUE = "…"  # stands for any value but a list or an object
_TIME = re.compile(r"\d{8}T\d{6}\.\d+Z")
_DATABASES_OWN = (".sqlite-wal", ".sqlite-shm")
Run = Callable[[Sequence[str]], int]

# What is typed, one after the other; each name is the key under which the outcome is kept.
SESSION = {
    "status --check, before anything": ["status", "--check"],
    "check --json": ["check", "--json"],
    "archive --json": ["archive", "--json"],
    "list --json": ["list", "--json"],
    "status --json": ["status", "--json"],
    "status --check": ["status", "--check"],
    "gaps list --json": ["gaps", "list", "--json"],
    "cost --json": ["cost", "--json"],
    "verify --deep --json": ["verify", "--deep", "--json"],
    "expire --json": ["expire", "--json"],
    "catalog rebuild --json": ["catalog", "rebuild", "--json"],
    "pause": ["pause", "--for", "1h", "--reason", "work on the network"],
    "alerts list --json": ["alerts", "list", "--json"],
    "alerts ack": ["alerts", "ack", "1", "--reason", "known", "--by", "somebody"],
    "alerts close, of no failed run": ["alerts", "close", "1", "--reason", "none"],
    "resume": ["resume"],
    "resume, not paused": ["resume"],
    "restore, without a base backup": ["restore", "--plan"],
    "metrics": ["metrics"],
}


class SmallArchive:
    """A spool with two good segments and one under a wrong name, and a prepared folder as the only store."""

    def __init__(self, folder: Path, prepare_store: Callable[[Path], None]) -> None:
        self.folder = folder
        self.pgdata, self.spool, self.store = folder / "pgdata", folder / "spool", folder / "store"
        for made in (self.pgdata / "pg_wal", self.spool, self.store, folder / "dagster"):
            made.mkdir(parents=True)
        prepare_store(self.store)
        spool_segments(self.spool, [1, 2])
        (self.spool / name_of(3)).write_bytes(segment_bytes(9))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DAGSTER_HOME": str(folder / "dagster"),
            "PGDATA": str(self.pgdata),
            "PG_WAL_ARCHIVE_DIR": str(self.spool),
            "WAL_PIPELINE_STORES": "local",
            "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(self.store),
            "WAL_PIPELINE_STATE_FOLDER": str(folder / "state"),
            "WAL_PIPELINE_SYSTEM_IDENTIFIER": str(SYSTEM_IDENTIFIER),
            "WAL_PIPELINE_SETTLE_SECONDS": "0",
            "WAL_PIPELINE_DISK_LOW_SHARE": "0",  # how full this machine's disks are says nothing of the program
            "WAL_PIPELINE_CONNINFO": "host=127.0.0.1 port=1 connect_timeout=1",
        }

    def session(self, run: Run) -> dict[str, Any]:
        """Type every command of the session; return the exit code and the shape of the JSON of each."""
        with plain_environment(self.folder, self.environment):
            return {title: _outcome(run, words) for title, words in SESSION.items()}

    def audit_lines(self) -> list[dict[str, Any]]:
        """Return what the audit log has of the session, once for each kind of line."""
        lines = [json.loads(line) for line in (self.folder / "state" / "audit.jsonl").read_text().splitlines()]
        kinds = {
            (line["action"], line["result"]): {"action": line["action"], "result": line["result"], "names": list(line)}
            for line in lines
        }
        return [kinds[key] for key in sorted(kinds)]

    def files(self) -> list[str]:
        """Return the files that the session left in the spool, beside it, in the state folder and in the store."""
        places = [place for pattern in ("spool*", "state", "store") for place in self.folder.glob(pattern)]
        found = [path for place in places for path in place.rglob("*") if path.is_file()]
        paths = (path.relative_to(self.folder).as_posix() for path in found if path.suffix not in _DATABASES_OWN)
        return sorted(_TIME.sub("TIME", path) for path in paths)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python as PostgreSQL or a person does: in a process of its own, in the data directory."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment, cwd=self.pgdata, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def without_paths(self, text: str) -> str:
        """Put words in the place of this machine's paths, and of where in the package a script lies."""
        for place, word in {sys.executable: "PYTHON", str(self.folder): "FOLDER", str(PROJECT): "PROJECT"}.items():
            text = text.replace(place, word)
        return re.sub(r"PROJECT/wal_pipeline/\S+\.py", "SCRIPT", text)


@contextmanager
def plain_environment(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Have these environment variables alone, and a current folder without a settings file."""
    with patch.dict(os.environ, environment, clear=True), chdir(folder):
        yield


def exit_code(run: Run, words: Sequence[str]) -> int:
    """Return a command's exit code; what it prints is not shown."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return run(words)


def _outcome(run: Run, words: Sequence[str]) -> dict[str, Any]:
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()):
        code = run(words)
    return {"exit_code": code} | ({"json": _shape(json.loads(printed.getvalue()))} if "--json" in words else {})


def _shape(value: Any) -> Any:
    """Return what a program that reads the JSON relies on: the names."""
    if isinstance(value, dict):
        return {name: _shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_merged([_shape(one) for one in value])] if value else []
    return VALUE


def _merged(shapes: list[Any]) -> Any:
    """Return one shape for all items of a list."""
    objects = [shape for shape in shapes if isinstance(shape, dict)]
    if not objects:
        return shapes[0]
    names = dict.fromkeys(name for one in objects for name in one)
    return {name: _merged([one[name] for one in objects if name in one]) for name in names}
