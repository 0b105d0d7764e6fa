"""Goes on in a process of its own, which fetches ahead and answers the next calls."""

import os
import sys
from collections.abc import Callable

from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal


def start_prefetcher(folder: PrefetchFolder, source: Callable[[], RecoveryWal], fingerprint: str) -> None:
    """Start a process that the server neither waits for nor signals; return once it answers. Raises: OSError.

    A fork, not a new program: everything is imported and connected already, so the next segments are under way at
    once. It takes the connections over: from here on the caller only leaves, by ``os._exit``, and never uses them
    again. The process itself opens the stores where the caller did not need them, and ends where that fails.
    """
    sys.stderr.flush()
    ready, tell = os.pipe()
    if os.fork() > 0:
        os.close(tell)
        os.read(ready, 1)  # ends with the process, too
        return
    try:
        os.close(ready)
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # the server waits for the end of its log pipe
            os.dup2(nowhere, stream)
        os.chdir(folder.path)
        _prefetch(folder, source(), fingerprint, lambda: os.close(tell))
    finally:
        # In a container the server may be process 1 and inherit us: it takes an unknown child that ends with another
        # code than 0 for a crashed backend (postmaster.c: CleanupBackend) and restarts.
        os._exit(0)


def _prefetch(folder: PrefetchFolder, source: RecoveryWal, fingerprint: str, on_ready: Callable[[], None]) -> None:
    # Here, so that nothing that goes wrong with them ends a call whose file is delivered.
    from wal_pipeline.commands.archive_get.prefetch_server import PrefetchServer  # noqa: PLC0415
    from wal_pipeline.commands.archive_get.prefetcher import Prefetcher, PrefetchLimits  # noqa: PLC0415

    prefetcher = Prefetcher(folder, source.fetch_whole, PrefetchLimits())
    server = PrefetchServer(
        folder,
        source.fetch,
        fingerprint,
        absence_notes=source.end_notes.take,
        on_ready=on_ready,
        on_other_settings=prefetcher.stop,
    )
    prefetcher.run(server, asked_at=lambda: server.asked_at, is_asked=server.is_asked)
