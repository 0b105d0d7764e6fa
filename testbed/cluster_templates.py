"""Copies clusters that PostgreSQL's initdb made once, each copy with a system identifier of its own."""

import atexit
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.processes import ServerError

_IDENTIFIER_BYTES = 8
_CONTROL_FILE_BYTES = 512
"""PG_CONTROL_MAX_SAFE_SIZE, src/include/catalog/pg_control.h"""
_WAL_IDENTIFIER_AT = 24
"""Of xlp_sysid in XLogLongPageHeaderData, the header of a segment's first page; no checksum covers it."""


@dataclass(frozen=True, slots=True)
class ClusterKind:
    """The options of initdb on which the bytes of a fresh cluster depend."""

    install: PostgresInstall
    wal_segment_size_mb: int
    data_checksums: bool
    encoding: str
    locale: str


# initdb makes the folders above the cluster's too.
_COPY = 'mkdir -p "$(dirname "$2")" && cp --archive "$1" "$2"'
_templates: dict[ClusterKind, Path] = {}


def copy_cluster(kind: ClusterKind, target: Path, initdb: Callable[[Path], None]) -> None:
    """Make a cluster in ``target``, which does not exist yet. ``initdb`` makes the first of its kind.

    Raises: ServerError where the copy fails.
    """
    if kind not in _templates:
        folder = owned_folder("template")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        initdb(folder / "pgdata")
        _templates[kind] = folder / "pgdata"
    copied = subprocess.run(
        postgres_user().wrap(["sh", "-c", _COPY, "sh", str(_templates[kind]), str(target)]),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if copied.returncode != 0:
        raise ServerError(f"'cp' ended with {copied.returncode}: {copied.stderr.strip()}")
    _identify(target, _new_identifier())


def _new_identifier() -> bytes:
    """As initdb makes one: the second, the microsecond and the process, here with the nanosecond's low bits."""
    nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    value = (seconds << 32) | ((rest // 1000) << 12) | ((os.getpid() ^ rest) & 0xFFF)
    return value.to_bytes(_IDENTIFIER_BYTES, "little")


def _identify(pgdata: Path, identifier: bytes) -> None:
    """Write another system identifier into the control file and the WAL segments."""
    with (pgdata / "global" / "pg_control").open("r+b") as control:
        data = control.read(_CONTROL_FILE_BYTES)
        changed = identifier + data[_IDENTIFIER_BYTES : _checksum_at(data)]
        control.seek(0)
        control.write(changed + _crc32c(changed).to_bytes(4, "little"))
    for path in (pgdata / "pg_wal").iterdir():
        if path.is_file():
            with path.open("r+b") as segment:
                segment.seek(_WAL_IDENTIFIER_AT)
                if segment.read(_IDENTIFIER_BYTES) == data[:_IDENTIFIER_BYTES]:  # else it is not written yet
                    segment.seek(_WAL_IDENTIFIER_AT)
                    segment.write(identifier)


def _checksum_at(control: bytes) -> int:
    """Find where the control file's checksum stands, which depends on the version: it is right there alone."""
    crc = 0xFFFFFFFF
    for at in range(len(control) - 3):
        if at > _IDENTIFIER_BYTES and control[at : at + 4] == (crc ^ 0xFFFFFFFF).to_bytes(4, "little"):
            return at
        crc = _CRC32C[(crc ^ control[at]) & 0xFF] ^ (crc >> 8)
    raise ServerError("the control file has no checksum")


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc32c_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = tuple(_crc32c_of_byte(byte) for byte in range(256))
