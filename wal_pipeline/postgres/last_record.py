"""Finds where the last whole record of a stretch of WAL begins."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.wal.lsn import Lsn

_LSN: Final = re.compile(rb", lsn: ([0-9A-F]+/[0-9A-F]+), ")


def read_last_record(
    pg_waldump: Path, folder: Path, segments: Sequence[str], *, timeout_seconds: float = 300.0
) -> Lsn | None:
    """Return the LSN at which the last whole record begins; None where no record begins in these segments.

    ``segments`` follow each other on one timeline. Raises: PostgresError where pg_waldump cannot be run.
    """
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)}
    command = [str(pg_waldump), "-p", str(folder), segments[0], segments[-1]]
    try:  # its exit code is 1 where the last segment ends, which is no error here
        done = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=timeout_seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PostgresError(f"'{pg_waldump}' cannot read '{segments[0]}': {error}") from error
    found = _LSN.findall(done.stdout)
    return Lsn.parse(found[-1].decode()) if found else None
