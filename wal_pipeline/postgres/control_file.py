"""Reads the system identifier, the version, the state and the segment size of a data directory from its files."""

import re
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries

# pg_control.h: ControlFileData begins with system_identifier (uint64), pg_control_version and
# catalog_version_no (uint32 each), state (an enum), time (int64) and checkPoint (an LSN), in the server's byte order.
_START: Final = struct.Struct("<QIIIxxxxqQ")
_FILE_BYTES: Final = 8192  # PG_CONTROL_FILE_SIZE, and never less
_CONTROL_VERSIONS: Final = range(1300, 10_000)  # 1300: PostgreSQL 13 to 16; then the major version times 100
_SEGMENT_SIZE: Final = re.compile(r"^Bytes per WAL segment: +(\d+)$", re.MULTILINE)
_TIMEOUT_SECONDS: Final = 30
_HINT: Final = "Set PGDATA to the cluster's data directory, and run as a user who may read it."


class ClusterState(IntEnum):
    """The state of a data directory's server, or its state when it ended (pg_control.h: DBState)."""

    STARTUP = 0
    SHUT_DOWN = 1
    SHUT_DOWN_IN_RECOVERY = 2
    SHUTTING_DOWN = 3
    IN_CRASH_RECOVERY = 4
    IN_ARCHIVE_RECOVERY = 5
    IN_PRODUCTION = 6


@dataclass(frozen=True, slots=True)
class ControlFile:
    """The start of ``global/pg_control``: fields that never change in a cluster's life, and its ``ClusterState``.

    ``written_epoch`` is when the server last changed its state or ended a checkpoint, in seconds since 1970;
    ``checkpoint_lsn`` is that of the last checkpoint's record.
    """

    system_identifier: int
    control_version: int
    catalog_version: int
    state: int
    written_epoch: int
    checkpoint_lsn: int


def read_control_file(pgdata: Path, path: Path | None = None) -> ControlFile:
    """Read the control file of the data directory ``pgdata``, whether its server runs or not. ``path``: it lies there.

    Raises: PostgresError where it does not exist, cannot be read, or is not a control file.
    """
    path = path or pgdata / "global" / "pg_control"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PostgresError(f"'{path}' cannot be read: {error.strerror}", hint=_HINT) from error
    if len(data) < _FILE_BYTES:
        raise PostgresError(f"'{path}' has {len(data)} bytes, expected {_FILE_BYTES}", hint=_HINT)
    control = ControlFile(*_START.unpack_from(data))
    if control.system_identifier == 0 or control.control_version not in _CONTROL_VERSIONS:
        raise PostgresError(
            f"'{path}' is not a control file of PostgreSQL 13 or newer: it has the system identifier "
            f"{control.system_identifier} and the version {control.control_version}",
            hint=_HINT,
        )
    return control


def read_server_major(pgdata: Path) -> int:
    """Return the major version (such as 18) of the data directory ``pgdata``, from its file PG_VERSION.

    Raises: PostgresError.
    """
    path = pgdata / "PG_VERSION"
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise PostgresError(f"'{path}' cannot be read: {error.strerror}", hint=_HINT) from error
    if not re.fullmatch(r"[0-9]{2,3}", text):
        raise PostgresError(f"'{path}' has '{text[:20]}', expected a major version such as 18", hint=_HINT)
    return int(text)


def read_wal_segment_size(pgdata: Path, binaries: Binaries) -> int:
    """Return ``wal_segment_size`` in bytes, as pg_controldata of the cluster's own version prints it.

    Raises: PostgresError.
    """
    done = run_pg_controldata(pgdata, binaries)
    match = _SEGMENT_SIZE.search(done.stdout)
    if done.returncode != 0 or match is None:
        raise PostgresError(
            f"'{done.args[0]}' does not print the segment size of '{pgdata}': {done.stderr.strip() or 'no such line'}",
            hint="Use the programs of the cluster's own major version.",
        )
    return int(match[1])


def run_pg_controldata(pgdata: Path, binaries: Binaries) -> "subprocess.CompletedProcess[str]":
    """Run pg_controldata on a data directory, in English, and return how it ended.

    Raises: PostgresError where it did not answer.
    """
    program = binaries.program("pg_controldata")
    try:
        return subprocess.run(
            [program, "-D", pgdata.absolute()],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
            env={"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PostgresError(f"'{program}' did not answer: {error}") from error
