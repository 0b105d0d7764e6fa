"""Runs the measured program as a user does: as a command, with its settings in the environment."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import MIB
from benchmarks.wal_input import WalInput
from testbed.dagster_instance import clean_environment
from testbed.postgres_install import postgres_18, postgres_user
from testbed.s3_pair import S3Buckets, S3Pair

_TIMEOUT_SECONDS = 1800
_LOOK_SECONDS = 0.05


class BenchError(RuntimeError):
    """A measured program failed, so that its figure would be worth nothing."""


@dataclass(frozen=True, slots=True)
class CommandRun:
    """The result of a command: wall time, peak memory with its workers, and the JSON object that it printed."""

    seconds: float
    peak_rss_mib: float
    answer: dict[str, Any]

    @property
    def drain_seconds(self) -> float:
        """The wall time of the archiving, without the start of Python and the import of the libraries."""
        return float(self.answer["seconds"])


def settings(
    stores: S3Pair,
    buckets: S3Buckets,
    folder: Path,
    wal: WalInput | None,
    *,
    codec: str = "zstd",
    level: int | None = 3,
    more: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Make a spool in ``folder``, and return the settings of a cluster whose spool and state lie there."""
    (folder / "spool").mkdir(exist_ok=True)
    found = {
        **stores.store_environment(buckets),
        "WAL_PIPELINE_CA_BUNDLE": str(stores.r2.ca_bundle),
        "WAL_PIPELINE_STATE_FOLDER": str(folder / "state"),
        "WAL_PIPELINE_CODEC": codec,
        "PG_WAL_ARCHIVE_DIR": str(folder / "spool"),
        "PGBINDIR": str(postgres_18().bin_folder),
        **(more or {}),
    }
    if level is not None:
        found["WAL_PIPELINE_CODEC_LEVEL"] = str(level)
    if wal is not None:
        found["WAL_PIPELINE_SYSTEM_IDENTIFIER"] = str(wal.system_identifier)
    return found


def command(
    environment: Mapping[str, str], *arguments: str, as_postgres: bool = False, check: bool = True
) -> CommandRun:
    """Run ``wal-pipeline`` with these arguments, as the present user or as PostgreSQL's.

    Raises: BenchError where it fails. Without ``check`` exit code 1 is no failure.
    """
    begun = time.perf_counter()
    words = [sys.executable, "-m", "wal_pipeline.cli", *arguments]
    process = subprocess.Popen(
        postgres_user().wrap(words) if as_postgres else words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**clean_environment(), **environment},
        cwd="/",
        text=True,
    )
    peak = 0.0
    while True:
        try:
            output, errors = process.communicate(timeout=_LOOK_SECONDS)
            break
        except subprocess.TimeoutExpired:
            peak = max(peak, sum(map(peak_rss_mib, _with_children(process.pid))))
            if time.perf_counter() - begun > _TIMEOUT_SECONDS:
                process.kill()
    seconds = time.perf_counter() - begun
    if process.returncode not in ((0,) if check else (0, 1, 2, 3)):
        raise BenchError(f"'wal-pipeline {arguments[0]}' ended with {process.returncode}:\n{output}{errors}")
    return CommandRun(seconds, peak, json.loads(output) if output.startswith("{") else {})


def archive(environment: Mapping[str, str], expected: int) -> CommandRun:
    """Drain the spool of ``expected`` files. Raises: BenchError unless all are archived."""
    run = command(environment, "archive", "--json")
    if run.answer["released"] != expected:
        raise BenchError(f"{run.answer['released']} files were archived, expected {expected}")
    return run


def _with_children(pid: int) -> list[int]:
    """Return the process and all below it.

    Without those that were just forked: until such a one runs a program of its own, its memory is its parent's.
    """
    found = [pid]
    for one in found:
        with suppress(OSError):  # it has ended
            for listed in Path(f"/proc/{one}/task").glob("*/children"):
                children = map(int, listed.read_text().split())
                found += [child for child in children if _words(child) != _words(one)]
    return found


def _words(pid: int) -> bytes:
    """Return the command line of a process; nothing where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def peak_rss_mib(pid: int) -> float:
    """Return the peak memory of a process in MiB; 0 where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / MIB for line in lines if line.startswith("VmHWM")), 0.0)
