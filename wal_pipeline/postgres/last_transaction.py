"""Finds the last completed transaction in a stretch of WAL; as in PostgreSQL's recovery, rollbacks count."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.wal.lsn import Lsn

# xlogrecovery.c, recoveryStopsAfter: commits and aborts, prepared or not, count as the "last completed transaction".
_COMPLETED: Final = re.compile(
    rb", lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+), .*?"
    rb"desc: (?P<kind>COMMIT|ABORT)(?:_PREPARED \d+:)? (?P<at>\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC(?:;|$)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class LastTransaction:
    """When the last transaction ended, by commit or rollback, and when the last commit was; None: there was none."""

    completed_at: datetime | None
    commit_at: datetime | None


def read_last_transaction(
    pg_waldump: Path, folder: Path, segments: Iterable[str], begin: Lsn, end: Lsn, *, timeout_seconds: float = 300.0
) -> LastTransaction:
    """Find the last transaction that ended in a record from ``begin`` to ``end`` (exclusive).

    ``segments`` follow each other on one timeline.

    Raises: PostgresError where pg_waldump cannot be run.
    """
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)}
    names = list(segments)
    command = [str(pg_waldump), "-r", "Transaction", "-p", str(folder), names[0], names[-1]]
    try:  # its exit code is 1 where the last segment ends, which is no error here
        done = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=timeout_seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PostgresError(f"'{pg_waldump}' cannot read '{names[0]}': {error}") from error
    return last_of(done.stdout, begin, end)


def last_of(text: bytes, begin: Lsn, end: Lsn) -> LastTransaction:
    """Find the last transaction in pg_waldump's output, whose times are in UTC."""
    completed = commit = None
    for match in _COMPLETED.finditer(text):
        if begin <= Lsn.parse(match["lsn"].decode()) < end:
            completed = match
            commit = match if match["kind"] == b"COMMIT" else commit
    return LastTransaction(_at(completed), _at(commit))


def _at(match: "re.Match[bytes] | None") -> datetime | None:
    text = None if match is None else match["at"].decode()
    return None if text is None else datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
