"""Holds the workers of a base backup: processes where there is much to read, and threads of this one where not."""

import logging
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

from wal_pipeline.commands.backup.local.file_worker import FileWorker, Task
from wal_pipeline.commands.backup.local.processes.worker_process import WorkerProcess
from wal_pipeline.commands.backup.local.workers import work_through
from wal_pipeline.host.limits import Memory

_log = logging.getLogger(__name__)
_MEMORY_A_PROCESS: Final = 128 << 20
_BYTES_A_PROCESS: Final = 256 << 20  # read in about the time that a process takes to start


def choose_processes(workers: int | None, cores: int, total_bytes: int, memory: Memory | None) -> int:
    """Return how many processes are to read so many bytes; 0: threads of this process do.

    ``workers`` is a person's choice; None: one for each core, none for a small cluster, and together no more than half
    of the ``memory`` that is free.
    """
    if workers is not None:
        return workers
    room = cores if memory is None else memory.available_bytes // (2 * _MEMORY_A_PROCESS)
    return min(cores, room, total_bytes // _BYTES_A_PROCESS)


class FileWorkers:
    """Several workers, each with one task at a time; a context manager that ends them."""

    def __init__(self, here: FileWorker, threads: int, processes: int, start: Callable[[], WorkerProcess]) -> None:
        """``start`` starts one of ``processes``; where there is none, ``here`` works in so many ``threads``."""
        self._here = here
        self._count = processes or threads
        self._wanted = processes
        self._start = start
        self._processes: list[WorkerProcess] = []
        self._idle: SimpleQueue[WorkerProcess | FileWorker] = SimpleQueue()

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
        for process in self._processes:
            self._idle.put(process)
        for _ in range(self._count - len(self._processes)):
            self._idle.put(self._here)
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
