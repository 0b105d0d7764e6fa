"""Base backups that are taken among the faults: each ends well, or with an error that a person can read."""

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
        """Start one and return it."""
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
        """SIGKILL one that may have ended."""
        if child.is_running:
            self._killed.add(child.name)
            child.kill()

    @property
    def taken(self) -> int:
        """How many ended well."""
        return sum(child.returncode == 0 for child in self._running)

    def settle(self) -> list[str]:
        """Wait until all have ended, and say what is wrong with the way they did."""
        deadline = time.monotonic() + _END_SECONDS
        while any(child.is_running for child in self._running) and time.monotonic() < deadline:
            poke(self._world)
            time.sleep(1)
        return [text for child in self._running if (text := self._fault(child)) is not None]

    def stop(self) -> None:
        """End what still runs."""
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
