"""Asks a recovering server's files and processes how it goes: its log may be silent, or not in the form we expect."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.control_file import ClusterState, read_control_file
from wal_pipeline.postgres.recovery import RECOVERY_SIGNAL

_STATUS_LINE: Final = 7  # pidfile.h: LOCK_FILE_LINE_PM_STATUS, counted from 0
_PROCESSES: Final = re.compile(r"\b(?P<name>startup|checkpointer)\b *(?P<doing>.*)")

_WAL_FILE: Final = re.compile(r"\b[0-9A-F]{8}(?:[0-9A-F]{16}|\.history)\b")


@dataclass(frozen=True, slots=True)
class StartupSigns:
    """All that changes while a recovery goes on. ``doing`` is the startup process' title, such as ``recovering …5``.

    ``asked_for`` is the file for which it runs its restore_command, "" for one that does not name it, None where it
    runs none. ``parts`` are the control file, the bytes that recovery wrote, and the files that it waits for. Equal
    signs, one after another: nothing that can be seen has happened.
    """

    doing: str
    asked_for: str | None
    parts: tuple[object, ...]


def is_open(pgdata: Path) -> bool:
    """Return whether recovery has ended and the server takes writes, by its own files.

    The control file's state alone does not tell: that of a base backup says "in production" too, until the server has
    begun to recover, and then ``recovery.signal`` is still there.
    """
    if (pgdata / RECOVERY_SIGNAL).exists() or server_status(pgdata) != "ready":
        return False
    try:
        return read_control_file(pgdata).state == ClusterState.IN_PRODUCTION
    except PostgresError:
        return False


def server_status(pgdata: Path) -> str:
    """Return the postmaster's word on itself in postmaster.pid: starting, standby, ready or stopping; or nothing."""
    try:
        lines = (pgdata / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else ""


def read_signs(pid: int, pgdata: Path, folders: Iterable[Path]) -> StartupSigns:
    """Read the signs of the server with this process id. ``folders`` are where its WAL files come in."""
    doing, asked_for = "", None
    parts = [_content(pgdata / "global" / "pg_control"), _sizes([pgdata / "pg_wal", *folders])]
    for child in _children(pid):
        match = _PROCESSES.search(_title(child))
        if match is not None:
            parts.append(_content(Path(f"/proc/{child}/io")).partition(b"write_bytes:")[2])
        if match is not None and match["name"] == "startup":
            doing, asked_for = match["doing"].strip(), _asked_for(child)
    return StartupSigns(doing, asked_for, tuple(parts))


def _asked_for(startup: int) -> str | None:
    """Return the file that the startup process' restore_command is to fetch now; None where none runs."""
    for command in _children(startup):
        match = _WAL_FILE.search(_title(command))
        return "" if match is None else match[0]
    return None


def _children(pid: int) -> list[int]:
    return [int(child) for child in _content(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def _title(pid: int) -> str:
    return _content(Path(f"/proc/{pid}/cmdline")).replace(b"\0", b" ").decode("utf-8", "replace")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _sizes(folders: Iterable[Path]) -> bytes:
    found = []
    for folder in folders:
        with suppress(OSError):
            for path in sorted(folder.iterdir()):
                with suppress(OSError):  # moved into place as we looked
                    found.append(f"{path.name} {path.stat().st_size}")
    return "\n".join(found).encode()
