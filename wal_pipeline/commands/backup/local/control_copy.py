"""Reads ``global/pg_control`` of a running server whole: its checksum says whether it was read while it was written."""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import google_crc32c

from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.control_file import read_control_file
from wal_pipeline.postgres.data_files import CONTROL_PATH

_TRIES: Final = 100
_PAUSE_SECONDS: Final = 0.05
_CHECKSUM: Final = struct.Struct("=I")
_SMALLEST_BYTES: Final = 128  # ControlFileData has about 300 in each version


@dataclass(frozen=True, slots=True)
class ControlCopy:
    """The file's bytes, with its time and permissions as ``os.stat`` gives them."""

    data: bytes
    modified_ns: int
    mode: int


def copy_control_file(pgdata: Path, pause: Callable[[float], object] = time.sleep) -> ControlCopy:
    """Read the file until its checksum is right; the server writes it in one go, within a moment.

    Raises: BaseBackupError where it stays wrong, PostgresError where it cannot be read.
    """
    path = pgdata / CONTROL_PATH
    for _ in range(_TRIES):
        read_control_file(pgdata)  # says in its own words what is wrong with one that is no control file
        data, status = path.read_bytes(), path.stat()
        if is_right(data):
            return ControlCopy(data, status.st_mtime_ns, status.st_mode & 0o7777)
        pause(_PAUSE_SECONDS)
    raise BaseBackupError(
        f"'{path}' has a wrong checksum, {_TRIES} times in a row",
        hint="A server that runs does not leave it so: see its log, and the kernel's. Older base backups stay.",
    )


def is_right(data: bytes) -> bool:
    """Whether the bytes fit their checksum.

    The checksum is the last field (pg_control.h: ControlFileData.crc, a CRC-32C of all bytes before it), and zeros fill
    the rest of the file. Where it lies differs from version to version, so each place near the end is tried.
    """
    end = len(data.rstrip(b"\0"))
    first = max(_SMALLEST_BYTES, end // 4 * 4 - 8)
    return any(
        _CHECKSUM.unpack_from(data, place)[0] == google_crc32c.value(data[:place])
        for place in range(first, min(end // 4 * 4 + 4, len(data) - 3), 4)
    )
