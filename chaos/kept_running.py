"""Keeps a command of the program running in a process of its own, as a service manager or a sensor does."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from testbed.dagster_instance import PROJECT, clean_environment
from testbed.processes import ChildProcess

_LOOK_SECONDS = 0.2


class KeptRunning:
    """A process that is started again whenever it ends, until it is stopped."""

    def __init__(self, name: str, module: str, *words: str, log: Path, environment: Mapping[str, str]) -> None:
        self._child = ChildProcess(
            name,
            (sys.executable, "-m", module, *words),
            log=log,
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
            self._child.kill()  # it may have been about to start one

    def kill(self) -> None:
        """SIGKILL the process; the next one follows at once."""
        with self._lock:
            self._child.kill()

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Kill the process, and start no other one during the block."""
        with self._lock:
            self._child.kill()
            yield

    def log_tail(self, lines: int = 40) -> str:
        """The last words of the processes."""
        return self._child.log_tail(lines)

    def _keep_running(self) -> None:
        while not self._ending.wait(_LOOK_SECONDS):
            with self._lock:
                if not self._child.is_running and not self._ending.is_set():
                    self._child.start()
