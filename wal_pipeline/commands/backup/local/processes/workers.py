"""Holds the workers of a base backup: processes where there is much to read, and threads of this one where not."""

import logging
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from wal_pipeline.commands.backup.local.file_worker import FileWorker, Task
from wal_pipeline.commands.backup.local.processes.messages import WorkerSetup
from wal_pipeline.commands.backup.local.processes.worker_process import Calls, StoreEncoded, WorkerProcess
from wal_pipeline.commands.backup.local.workers import work_through

_log = logging.getLogger(__name__)


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
