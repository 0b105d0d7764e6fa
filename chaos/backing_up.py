"""Takes base backups among the faults: each must succeed, or end with an error that a person can read."""

import sys
import time

from chaos.checks import poke
from chaos.world import World
from testbed.dagster_instance import PROJECT, clean_environment
from testbed.processes import ChildProcess

_END_SECONDS = 240.0
_USAGE_OR_FAILURE = (1, 2)


class Backups:
    """The base backups of one schedule, each a ``wal-pipeline backup`` of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: list[ChildProcess] = []
        self._killed: set[str] = set()

    def begin(self) -> ChildProcess:
        """Start a base backup and return its process."""
        name = f"backup-{len(self._running) + 1}"
        child = ChildProcess(
            name,
            (sys.executable, "-m", "wal_pipeline.cli", "backup", "--json"),
            log=self._world.folder / f"{name}.log",
            env={**clean_environment(), **self._world.environment},
            cwd=PROJECT,
        )
        child.start()
        self._running.append(child)
        return child

    def kill(self, child: ChildProcess) -> None:
        """SIGKILL a base backup, which may have ended."""
        if child.is_running:
            self._killed.add(child.name)
            child.kill()

    @property
    def taken(self) -> int:
        """The number of base backups that succeeded."""
        return sum(child.returncode == 0 for child in self._running)

    def settle(self) -> list[str]:
        """Wait until all have ended, and return each wrong ending as a text."""
        deadline = time.monotonic() + _END_SECONDS
        while any(child.is_running for child in self._running) and time.monotonic() < deadline:
            poke(self._world)
            time.sleep(1)
        return [text for child in self._running if (text := self._fault(child)) is not None]

    def stop(self) -> None:
        """End the base backups that still run."""
        for child in self._running:
            child.kill()

    def _fault(self, child: ChildProcess) -> str | None:
        if child.is_running:
            return f"'{child.name}' did not end:\n{child.log_tail()}"
        if child.returncode == 0 or child.name in self._killed:
            return None
        said = child.log_tail(200)
        if child.returncode not in _USAGE_OR_FAILURE or "Traceback" in said or "ERROR: " not in said:
            return f"'{child.name}' ended with {child.returncode}:\n{said}"
        return None
