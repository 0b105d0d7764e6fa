"""Runs a Redis server on loopback and a warm worker that takes runs from it, each a process of its own."""

import importlib.util
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from testbed.dagster_instance import PROJECT
from testbed.ports import LOOPBACK, free_ports
from testbed.processes import ChildProcess, ServerError

INSTANCE_FILE = PROJECT / "deploy" / "dagster-workers.yaml"


def missing_part() -> str | None:
    """Name the part that warm workers need and that is not installed; None where all is there."""
    if shutil.which("redis-server") is None:
        return "redis-server is not installed: apt-get install -y redis-server"
    if importlib.util.find_spec("dagster_celery") is None:
        return "dagster-celery is not installed: pip install 'wal-pipeline[workers]'"
    return None


class RedisServer:
    """A Redis that keeps nothing on disk and asks for a password."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.password = secrets.token_hex(16)
        configuration = folder / "redis.conf"
        configuration.write_text(
            f"bind {LOOPBACK}\nport {self.port}\nrequirepass {self.password}\nsave ''\nappendonly no\ndir {folder}\n"
        )
        configuration.chmod(0o600)
        self.process = ChildProcess("redis", ["redis-server", str(configuration)], log=folder / "redis.log")

    @property
    def url(self) -> str:
        """The server's address, with its password."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that deploy/dagster-workers.yaml reads."""
        return {"DAGSTER_REDIS_URL": self.url}

    def start(self) -> None:
        """Start the server and return when it listens."""
        self.process.start()
        self.process.wait_until(lambda: "Ready to accept connections" in self.process.log_tail())


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run a Redis server as long as the block. Raises: ServerError where it is not installed."""
    reason = missing_part()
    if reason is not None:
        raise ServerError(reason)
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.process.kill()


class WarmWorker:
    """A worker with the environment of a code location."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        command = (sys.executable, "-m", "wal_pipeline.worker")
        self.process = ChildProcess("worker", command, log=folder / "worker.log", env=environment, cwd=PROJECT)

    def start(self) -> None:
        """Start the worker and return when it takes runs and has loaded all that they need."""
        self.process.start()
        self.process.wait_until(self._is_warm, timeout_seconds=120)

    def _is_warm(self) -> bool:
        log = self.process.log_tail(100)
        return " ready." in log and "needs is loaded" in log


@contextmanager
def running_worker(folder: Path, environment: Mapping[str, str]) -> Iterator[WarmWorker]:
    """Run a worker as long as the block; its home must have the instance file."""
    worker = WarmWorker(folder, environment)
    try:
        worker.start()
        yield worker
    finally:
        worker.process.kill()
