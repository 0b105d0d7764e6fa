"""Asks the kernel, with a read lease, whether a process has a file open for writing."""

import errno
import fcntl
import os
import secrets
import signal
from enum import StrEnum
from pathlib import Path
from typing import Final

PROBE_PREFIX: Final = ".wal-pipeline-lease."  # begins with a dot: never taken for a WAL file


class Writer(StrEnum):
    """The kernel's answer: whether somebody writes."""

    NONE = "none"
    OPEN = "open"
    UNKNOWN = "unknown"  # not our file, or a file system or system that has no leases


def find_writer(descriptor: int, folder: Path) -> Writer:
    """Say whether any process, this one included, has the file of a read-only descriptor open for writing.

    A read lease (fcntl(2), F_SETLEASE) is refused with EAGAIN while one has. It is given back at once; a writer that
    comes in between waits for that. ``folder`` is where the file lies: network file systems give that answer where
    there is no writer too, so an answer of EAGAIN counts only if a file there that nobody writes can be leased.
    """
    answer = _ask(descriptor)
    return Writer.UNKNOWN if answer is Writer.OPEN and not _can_be_trusted(folder) else answer


def _ask(descriptor: int) -> Writer:
    if not hasattr(fcntl, "F_SETLEASE"):
        return Writer.UNKNOWN
    try:
        # Who breaks the lease is announced by SIGIO, which ends a process that does not expect it; SIGURG does not.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writer.OPEN if error.errno == errno.EAGAIN else Writer.UNKNOWN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writer.NONE


def _can_be_trusted(folder: Path) -> bool:
    """Whether a new file of ours can be leased there; where none can be made, the answer is believed."""
    path = folder / f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            path.unlink()
    except OSError:
        return True
    try:
        return _ask(descriptor) is Writer.NONE
    finally:
        os.close(descriptor)
