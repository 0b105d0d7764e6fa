"""Generates PostgreSQL's ``restore_command``, and delivers the file that it asks for."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.commands.archive_get import prefetch_client
from wal_pipeline.commands.archive_get.prefetch_folder import Position, PrefetchFolder
from wal_pipeline.commands.archive_get.wal_source import FetchedWal, fetch_patiently
from wal_pipeline.errors import RestoreError
from wal_pipeline.host.durable_file import write_whole
from wal_pipeline.host.mounts import is_writable
from wal_pipeline.wal.names import FileKind, WalFileName

# xlogarchive.c, RestoreArchivedFile: up to 125 means "not in the archive", and recovery ends as if that were all;
# above 125 is fatal. Python exits with 1 when an import fails, so our word for proven absence is a code of its own.
EXIT_DELIVERED: Final = 0
EXIT_ABSENT: Final = 1
EXIT_ABSENT_MARK: Final = 100
EXIT_FAILED: Final = 200
_LARGEST_MEANING_ABSENT: Final = 125
_POLL_SECONDS: Final = 0.02
_LONGEST_WAIT_SECONDS: Final = 120.0
_PREFETCH: Final = ".wal-pipeline-prefetch"


@dataclass(frozen=True, slots=True)
class DeliveredFile:
    """One file in place. ``store`` is None where it had been fetched ahead; ``notes`` are for the server's log."""

    name: str
    size_bytes: int
    store: str | None
    notes: tuple[str, ...] = ()


def take_prefetched(folder: PrefetchFolder | None, name: WalFileName, destination: Path) -> DeliveredFile | None:
    """Put the file at ``destination`` if it was fetched ahead or is being fetched; None where it is not."""
    if folder is None or not _take(folder, name, destination):
        return None
    return DeliveredFile(name.name, destination.stat().st_size, None)


def fetch_and_deliver(
    fetch: Callable[[], FetchedWal | None], destination: Path, retry_seconds: float, say: Callable[[str], None]
) -> DeliveredFile | None:
    """Put the file that ``fetch`` returns at ``destination``; None where it is proven that no store has it.

    Raises: WalUnreachableError, SettingsError, RestoreError, StoreError: never taken for the archive's end.
    """
    fetched = fetch_patiently(fetch, retry_seconds, say=say)
    if fetched is None:
        return None
    try:
        write_whole(fetched.data, destination)
    except OSError as error:
        raise RestoreError(f"'{destination}' cannot be written: {error.strerror}") from error
    return DeliveredFile(fetched.name.name, len(fetched.data), fetched.store, fetched.notes)


def _take(folder: PrefetchFolder, name: WalFileName, destination: Path) -> bool:
    """Take a file that was fetched ahead, or that a prefetcher is fetching right now."""
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    while not folder.take(name, destination):
        if not folder.is_being_fetched(name) or time.monotonic() > deadline:
            return folder.take(name, destination)  # it may have arrived between the two looks
        time.sleep(_POLL_SECONDS)
    return True


def note_position(folder: PrefetchFolder, name: WalFileName, delivery: DeliveredFile | None) -> bool:
    """Tell the prefetcher where replay is; True where one has to be started. Raises: OSError, RestoreError.

    It is started by the first file that is asked for, also one that is absent: it answers the next calls.
    """
    folder.make()
    running = folder.is_locked()
    if delivery is None or name.kind is not FileKind.SEGMENT:
        if not running:
            folder.forget_position()
    elif delivery.store is not None or not running:
        folder.write_position(Position(name, delivery.size_bytes))
    return not running


def prefetch_folder(pgdata: Path, system_identifier: int, root: Path | None = None) -> PrefetchFolder:
    """Return the folder of prefetched files: by default beside the data directory, so that a move is a rename.

    The system identifier is in its name, so that files of a cluster restored earlier are never taken.
    """
    real = pgdata.resolve()  # what the server's current folder is, also where PGDATA is a link
    parent = (prefetch_root_inside(pgdata) or real.parent / _PREFETCH) if root is None else root.absolute()
    return PrefetchFolder(parent / f"{real.name}-{system_identifier}")


def prefetch_root_inside(pgdata: Path) -> Path | None:
    """Return the folder for prefetched files in ``pg_wal``, where they cannot lie beside the data directory.

    A mount point is on another disk than its parent, which may be root's too. PostgreSQL passes over it in ``pg_wal``,
    and so does a base backup.
    """
    real = pgdata.resolve()
    beside = real.parent / _PREFETCH
    if is_writable(beside) and (beside.is_dir() or not os.path.ismount(real)):
        return None
    return real / "pg_wal" / _PREFETCH


def program(
    system_identifier: int,
    *,
    env_file: Path | None,
    prefetch_dir: Path | None = None,
    store: str = "any",
    retry_seconds: float = 60.0,
    prefetch: bool = True,
    standby: bool = False,
) -> list[str]:
    """Return the call of ``archive-get`` for a restore command. ``-P`` keeps PGDATA out of Python's search path."""
    words = [sys.executable, "-P", "-m", "wal_pipeline.cli.archive_get", f"--system-identifier={system_identifier}"]
    given = {
        "--env-file": env_file,
        "--prefetch-dir": prefetch_dir and prefetch_dir.absolute(),
        "--store": None if store == "any" else store,
        "--retry-seconds": f"{retry_seconds:g}",
    }
    words += [f"{name}={value}" for name, value in given.items() if value is not None]
    words += ["--standby"] if standby else []
    return words if prefetch else [*words, "--no-prefetch"]


def shell_line(program: Sequence[str], folder: Path | None, client: Sequence[str] = ()) -> str:
    """Return the ``restore_command``: a line for ``sh`` in which ``%f``, ``%p`` are PostgreSQL's placeholders.

    ``program`` is the call of ``archive-get`` without the two placeholders. A prefetched file is moved into place
    without a Python start, out of a folder of the server's own user (``-O``); for another file the process that
    fetches ahead is asked by ``client`` (default: ``prefetch_client``), a small script that is called with the folder,
    the program and the placeholders, and becomes the program where it gets no answer. Of all that can go wrong, only
    the proof of absence becomes exit code 1: a program that is missing (127), cannot be imported (1) or was called
    wrongly (2) ends above 125, and a code above 125 stays as it is, so that PostgreSQL sees a signal (143: a fast
    shutdown) for what it is.
    """
    words = [*program, "--exit-absent", str(EXIT_ABSENT_MARK)]
    move = ""
    if folder is not None:
        ours = _quoted(str(folder))
        move = f'[ -O {ours} ] && mv -f {ours}/"%f" "%p" 2>/dev/null && exit 0; '
        words = [*(client or (sys.executable, "-I", "-S", prefetch_client.__file__)), str(folder), *words]
    call = " ".join(map(_quoted, words))
    return (
        f'{move}{call} "%f" "%p"; r=$?; '
        f"[ $r -eq {EXIT_DELIVERED} ] && exit {EXIT_DELIVERED}; "
        f"[ $r -eq {EXIT_ABSENT_MARK} ] && exit {EXIT_ABSENT}; "
        f"[ $r -gt {_LARGEST_MEANING_ABSENT} ] && exit $r; exit {EXIT_FAILED}"
    )


def _quoted(word: str) -> str:
    return shlex.quote(word).replace("%", "%%")
