"""Finds the server that runs in a data directory, and tells it from a ``postmaster.pid`` of the dead."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.host.open_writers import Writer, find_writer

PID_FILE: Final = "postmaster.pid"
_PROGRAMS: Final = ("postgres", "postmaster")  # comm is cut at 15 characters; other builds put words before it
_MOST_SEGMENTS: Final = 4
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class FoundServer:
    """A server that runs in a data directory, or one that may. ``pid`` is its process, where it can be seen.

    ``sure`` is False where the process that ``postmaster.pid`` names lives and cannot be looked at.
    """

    pid: int | None
    sure: bool
    message: str
    hint: str


def find_server(pgdata: Path) -> FoundServer | None:
    """Return the server that runs in a data directory; None where none does.

    A process counts that is PostgreSQL's by its name and works in this folder, as every process of a server does,
    whatever its number: the number in ``postmaster.pid`` may be another process's since, such as our own in a
    container. A server of another container shows no process here; but the kernel knows that its files are open for
    writing.

    Raises: PostgresError where the folder has a ``postmaster.pid`` that cannot be read.
    """
    if not pgdata.is_dir():
        return None
    named = _named_pid(pgdata)
    working = {pid: works_in(pid, pgdata) for pid in _postgres_processes()}
    if named is not None and named not in working and _is_hidden(named):
        working[named] = None
    pid = next((pid for pid, works in sorted(working.items()) if works), None)
    if pid is not None:
        return _running(pgdata, named if named is not None and working.get(named) else pid)
    opened = _open_file(pgdata)
    if opened is not None:
        return _elsewhere(pgdata, opened)
    doubtful = next((pid for pid, works in sorted(working.items()) if works is None and _has_number(pid, named)), None)
    return None if doubtful is None else _doubtful(pgdata, doubtful)


def works_in(pid: int, folder: Path) -> bool | None:
    """Return whether the process works in the folder, as a postmaster does in its own; None where it is hidden."""
    try:
        return (_PROC / str(pid) / "cwd").samefile(folder)
    except FileNotFoundError:
        return False
    except OSError:
        return None


def _named_pid(pgdata: Path) -> int | None:
    """Return the process that ``postmaster.pid`` names; a server without a postmaster names its own as negative."""
    path = pgdata / PID_FILE
    try:
        return abs(int(path.read_text(encoding="ascii", errors="replace").split("\n", 1)[0])) or None
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise PostgresError(f"'{path}' cannot be read: {error.strerror}") from error


def _postgres_processes() -> Iterator[int]:
    """Yield the processes that are PostgreSQL's by their name, which everyone may read."""
    if not _PROC.is_dir():
        return
    for path in _PROC.iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                if any(word in (path / "comm").read_text(errors="replace") for word in _PROGRAMS):
                    yield int(path.name)


def _is_hidden(pid: int) -> bool:
    """Whether a process lives of which not even the name can be read: no /proc, or one that hides other users'."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    try:
        (_PROC / str(pid) / "comm").read_bytes()
    except OSError:
        return True
    return False


def _has_number(pid: int, named: int | None) -> bool:
    """Whether a process has the number that ``postmaster.pid`` names, here or in a container of its own."""
    if named is None or pid == named:
        return named is not None
    with suppress(OSError, ValueError):
        for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1]) == named
    return False


def _open_file(pgdata: Path) -> Path | None:
    """Return a file of the cluster that some process has open for writing, also one that cannot be seen from here."""
    for path in _looked_at(pgdata):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if find_writer(descriptor, path.parent) is Writer.OPEN:
                return path
        finally:
            os.close(descriptor)
    return None


def _looked_at(pgdata: Path) -> Iterator[Path]:
    """Yield the shared catalogs, of which an idle server has some open, and the newest segments."""
    with suppress(OSError):
        yield from (path for path in sorted((pgdata / "global").iterdir()) if path.name[0].isdigit())
    with suppress(OSError):
        segments = [path for path in (pgdata / "pg_wal").iterdir() if len(path.name) == 24]
        yield from sorted(segments, key=lambda path: path.lstat().st_mtime, reverse=True)[:_MOST_SEGMENTS]


def _running(pgdata: Path, pid: int) -> FoundServer:
    return FoundServer(
        pid,
        True,
        f"a server with process id {pid} runs in '{pgdata}'",
        f"Stop it first, and be sure that it is the one to replace: pg_ctl stop -D {pgdata}",
    )


def _elsewhere(pgdata: Path, opened: Path) -> FoundServer:
    return FoundServer(
        None,
        True,
        f"a server runs in '{pgdata}': a process that cannot be seen from here has '{opened}' open for writing",
        "It may be in another container, or another user's. Stop it there, and be sure that it is the one to replace.",
    )


def _doubtful(pgdata: Path, pid: int) -> FoundServer:
    return FoundServer(
        pid,
        False,
        f"a server may run in '{pgdata}': its '{PID_FILE}' names process {pid}, which lives and cannot be looked at",
        f"Look what it is: ps -fp {pid}. Where it is a server of this folder, stop it; else remove "
        f"'{pgdata / PID_FILE}', or start again as root.",
    )
