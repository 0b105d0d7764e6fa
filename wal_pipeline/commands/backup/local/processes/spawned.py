"""Starts the worker processes of a base backup, if need be before the base backup itself is ready.

Imports little: the processes load their modules while the base backup loads its own.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

_MODULE: Final = "wal_pipeline.commands.backup.local.processes.worker_main"
# glibc's: the memory of a chunk serves for the next one, and is not mapped and cleared for each.
_MEMORY_KEPT: Final = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
# In memory pages of 2 MiB, where the kernel gives them: a checksum jumps through a chunk, zstd through its tables, and
# on a virtual machine each look into the tables of small memory pages costs much. glibc before 2.35 ignores it.
_TUNABLES: Final = "GLIBC_TUNABLES"
_LARGE_PAGES: Final = "glibc.malloc.hugetlb=1"
_END_SECONDS: Final = 5.0


class SpawnedWorker(NamedTuple):
    """A worker process, and our end of its connection. It waits for its ``WorkerSetup``."""

    process: subprocess.Popen[bytes]
    connection: Connection

    def end(self) -> int:
        """Let it end, kill it where it does not, and return its exit code."""
        self.connection.close()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, kill it where that does not come, and return its exit code."""
        try:
            return self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def spawn_worker() -> SpawnedWorker:
    """Start a worker process. A fork of this one would inherit locks that other threads hold, so it is a fresh one.

    Nor is it one of ``multiprocessing``, which would load the main module once more: in a run that is Dagster's.
    Control-C does not reach it, not even while it loads: the base backup ends it.

    Raises: OSError where the system does not let a process start.
    """
    connection, theirs = Pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it inherits that
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_environment(),
            pass_fds=(theirs.fileno(),),
        )
    except OSError:
        connection.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return SpawnedWorker(process, connection)


def _environment() -> dict[str, str]:
    """Return a worker's environment. What a person set there for glibc counts more than ours."""
    tunables = ":".join(filter(None, (_LARGE_PAGES, os.environ.get(_TUNABLES))))
    modules = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, **_MEMORY_KEPT, _TUNABLES: tunables, "PYTHONPATH": modules}


class SpawnedAhead:
    """Worker processes that were started ahead; ``close`` ends those that nobody took."""

    def __init__(self, count: int = 0) -> None:
        """Start so many. Where the system lets fewer start, those that are missing are started when they are needed."""
        self._waiting: deque[SpawnedWorker] = deque()
        try:
            for _ in range(count):
                self._waiting.append(spawn_worker())
        except OSError:
            return  # whoever needs them tries again, and says what is in the way

    def take(self) -> SpawnedWorker:
        """Return one of them, or start one. Raises: OSError where the system does not let a process start."""
        return self._waiting.popleft() if self._waiting else spawn_worker()

    def close(self) -> None:
        """End those that nobody took. A second call does no harm."""
        while self._waiting:
            self._waiting.popleft().end()
