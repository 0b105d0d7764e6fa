"""Chooses how many processes read a data directory."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from wal_pipeline.host.limits import look_at_memory, usable_cores

_MEMORY_A_PROCESS: Final = 128 << 20
_BYTES_A_PROCESS: Final = 256 << 20  # read in about the time that a process takes to start


def choose_processes(workers: int | None, pgdata: Path) -> int:
    """Return how many processes are to read a data directory; 0: threads of this process do.

    ``workers`` is a person's choice; None: one for each core, none for a small cluster, and together no more than half
    of the memory that is free.
    """
    if workers is not None:
        return workers
    cores, memory = usable_cores(), look_at_memory()
    room = cores if memory is None else memory.available_bytes // (2 * _MEMORY_A_PROCESS)
    most = min(cores, room)
    return min(most, size_up_to(pgdata, most * _BYTES_A_PROCESS) // _BYTES_A_PROCESS)


def size_up_to(pgdata: Path, enough_bytes: int) -> int:
    """Add up the files of databases and tablespaces until it is enough: a large cluster is known by a few of them."""
    found_bytes = 0
    for top in (pgdata / "base", *_tablespaces(pgdata)):
        for folder, _, names in os.walk(top):
            for name in names:
                with suppress(OSError):
                    found_bytes += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - for each file
                if found_bytes >= enough_bytes:
                    return found_bytes
    return found_bytes


def _tablespaces(pgdata: Path) -> list[Path]:
    try:
        return [link.resolve() for link in (pgdata / "pg_tblspc").iterdir()]
    except OSError:
        return []
