"""Archives during a schedule: by ``wal-pipeline archive`` in a loop, or by the real daemon and its runs."""

import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from chaos.kept_running import KeptRunning
from testbed.dagster_instance import DagsterInstance
from testbed.processes import lock_holder
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
    def standing_still(self) -> AbstractContextManager[None]:
        """SIGKILL all processes, and start none during the block."""

    @abstractmethod
    def log_tail(self) -> str:
        """The last words of the processes."""


class CommandArchiving(Archiving):
    """``wal-pipeline archive`` as a child process, which is started again whenever it ends, as by the sensor."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, linger_seconds: float, offset_file: Path
    ) -> None:
        """``offset_file`` holds the seconds by which the archiver's clock is wrong."""
        self._kept = KeptRunning(
            "wal-pipeline archive",
            "chaos.archive_process",
            *(str(offset_file), f"{linger_seconds}"),
            log=folder / "archive.log",
            environment=environment,
        )

    def start(self) -> None:
        """Start a process, and another one whenever it has ended."""
        self._kept.start()

    def stop(self) -> None:
        """End the process for good."""
        self._kept.stop()

    def kill_run(self) -> None:
        """SIGKILL the process; the next one follows at once."""
        self._kept.kill()

    def standing_still(self) -> AbstractContextManager[None]:
        """Kill the process, and start no other one during the block."""
        return self._kept.standing_still()

    def log_tail(self) -> str:
        """The last words of the processes."""
        return self._kept.log_tail()


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

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Kill daemon, code server and runs, and start them again after the block."""
        self.dagster.stop()
        yield
        self.start()

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
