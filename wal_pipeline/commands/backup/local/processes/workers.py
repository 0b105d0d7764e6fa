"""Holds the workers of a base backup: processes where there is much to read, and threads of this one where not."""

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

from wal_pipeline.commands.backup.local.file_worker import FileWorker, Task
from wal_pipeline.commands.backup.local.processes.messages import WorkerSetup
from wal_pipeline.commands.backup.local.processes.worker_process import Calls, StoreEncoded, WorkerProcess
from wal_pipeline.commands.backup.local.workers import work_through
from wal_pipeline.host.limits import look_at_memory, usable_cores

_log = logging.getLogger(__name__)
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


class FileWorkers:
    """Several workers, each with one task at a time; a context manager that starts and ends them."""

    def __init__(self, processes: int, threads: int, start: Callable[[], WorkerProcess] = WorkerProcess) -> None:
        """``start`` starts one of the ``processes``; with 0 of them so many ``threads`` do the tasks."""
        self._wanted = processes
        self._count = processes or threads
        self._start = start
        self._processes: list[WorkerProcess] = []
        self._idle: SimpleQueue[WorkerProcess | FileWorker] = SimpleQueue()

    def begin(self, here: FileWorker, setup: WorkerSetup, calls: Calls, store: StoreEncoded) -> None:
        """Say what the tasks are about, before the first one: to ``here``, which works in threads, and to processes.

        Raises: BaseBackupError where a process is gone.
        """
        for process in self._processes:
            process.begin(setup, calls, store)
            self._idle.put(process)
        for _ in range(self._count - len(self._processes)):
            self._idle.put(here)

    def run(self, tasks: Iterable[Task], *, stop: Callable[[], object], tick: Callable[[], object]) -> None:
        """Do all tasks, as ``work_through`` does. Raises: as it does."""

        def stop_all() -> None:
            stop()
            for process in self._processes:
                process.stop()

        work_through(tasks, self._do, workers=self._count, stop=stop_all, tick=tick)

    def __enter__(self) -> Self:
        """Start the processes. Where the system lets fewer start, threads do the rest."""
        try:
            for _ in range(self._wanted):
                self._processes.append(self._start())
        except OSError as error:
            _log.warning("%d of %d worker processes start: %s", len(self._processes), self._wanted, error.strerror)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes, at once where something failed."""
        if kind is not None:
            for process in self._processes:
                process.stop()
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.close()

    def _do(self, task: Task) -> None:
        worker = self._idle.get()
        try:
            worker.do(task)
        finally:
            self._idle.put(worker)
