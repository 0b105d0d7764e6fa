"""Archives during a schedule: by ``wal-pipeline archive`` in a loop, or by the real daemon and its runs."""

import contextlib
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

from testbed.dagster_instance import PROJECT, DagsterInstance, clean_environment
from testbed.processes import ChildProcess, lock_holder
from wal_pipeline.spool import LOCK_NAME


class Archiving(ABC):
    """Processes that archive the spool until they are stopped. After a run was killed, another one follows."""

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def stop(self) -> None:
        """End all processes; none is started again."""

    @abstractmethod
    def kill_run(self) -> None:
        """SIGKILL the archiving run in flight, if there is one, with all that it started."""

    @abstractmethod
    def log_tail(self) -> str:
        """The last words of the processes."""


class CommandArchiving(Archiving):
    """``wal-pipeline archive`` as a child process, which is started again whenever it ends, as by the sensor."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, linger_seconds: float, offset_file: Path
    ) -> None:
        """``offset_file`` holds the seconds by which the archiver's clock is wrong."""
        module = "chaos.archive_process"
        self._child = ChildProcess(
            "wal-pipeline archive",
            (sys.executable, "-m", module, str(offset_file), f"{linger_seconds}"),
            log=folder / "archive.log",
            env={**clean_environment(), **environment},
            cwd=PROJECT,
        )
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, daemon=True)

    def start(self) -> None:
        """Start a process, and another one whenever it has ended."""
        self._thread.start()

    def stop(self) -> None:
        """End the process for good."""
        self._ending.set()
        self._child.kill()
        if self._thread.is_alive():
            self._thread.join()

    def kill_run(self) -> None:
        """SIGKILL the process; the next one follows at once."""
        with self._lock:
            self._child.kill()

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Kill the process, and start no other one during the block."""
        with self._lock:
            self._child.kill()
            yield

    def log_tail(self) -> str:
        """The last words of the processes."""
        return self._child.log_tail(40)

    def _keep_running(self) -> None:
        while not self._ending.wait(0.2):
            with self._lock:
                if not self._child.is_running and not self._ending.is_set():
                    self._child.start()


class DaemonArchiving(Archiving):
    """The real daemon and code server; the spool sensor starts the runs."""

    def __init__(self, folder: Path, environment: Mapping[str, str], spool: Path) -> None:
        self.dagster = DagsterInstance(folder, environment)
        self._spool = spool

    def start(self) -> None:
        """Start code server and daemon. No web server is needed."""
        self.dagster.start_code_server()
        self.dagster.start_daemon()

    def stop(self) -> None:
        """End both, and the runs."""
        self.dagster.stop()

    def kill_run(self) -> None:
        """SIGKILL the process that holds the spool's lock."""
        pid = lock_holder(self._spool / LOCK_NAME)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_daemon(self, pause_seconds: float) -> None:
        """SIGKILL the daemon and start it again."""
        self.dagster.daemon.kill()
        time.sleep(pause_seconds)
        self.dagster.start_daemon()

    def kill_code_server(self, pause_seconds: float) -> None:
        """SIGKILL the code server with its runs and start it again."""
        self.dagster.code_server.kill()
        time.sleep(pause_seconds)
        self.dagster.start_code_server()

    def lose_home(self, pause_seconds: float) -> None:
        """Remove DAGSTER_HOME while all processes run, then end them and start again with an empty one."""
        self.dagster.lose_home()
        self.dagster.stop()
        self.dagster.lose_home()
        time.sleep(pause_seconds)
        self.start()

    def log_tail(self) -> str:
        """The last words of daemon and code server."""
        return self.dagster.daemon.log_tail(30) + "\n" + self.dagster.code_server.log_tail(30)
