"""Base backup and restore of a schedule's cluster, also with the stores cut off in the middle of the recovery."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wal_pipeline_tests.chaos.world import World
from wal_pipeline_tests.support.dagster_instance import PROJECT, clean_environment
from wal_pipeline_tests.support.faults import ResetBefore
from wal_pipeline_tests.support.postgres import PostgresCluster
from wal_pipeline_tests.support.postgres_install import owned_folder, postgres_user

_COMMAND_SECONDS = 180
_END_SECONDS = 90
_RETRY_SECONDS = 1


class RestoreFailedError(AssertionError):
    """A backup or a restore did not work, or did not bring back what was committed."""


def back_up(world: World) -> None:
    """Take a base backup onto both stores. Raises: RestoreFailedError."""
    run(world, "wal_pipeline.cli", "backup", "--json", env=world.environment)


@dataclass(frozen=True, slots=True)
class Restored:
    """How a restore went. ``cut_off``: the server ended while the stores were away, as it must.

    ``early_open``: it opened without some commit.
    """

    cut_off: bool = False
    early_open: bool = False


def restore(world: World) -> Restored:
    """Restore to the end of the archive from the stores and look for every commit.

    Raises: RestoreFailedError.
    """
    with _machine(world) as cluster:
        run(world, "wal_pipeline.cli", "restore", "--pgdata", str(cluster.pgdata), "--no-archiving", "--json")
        restored = _recover_cut_off(world, cluster) if world.schedule.cut_restore else Restored()
        if not cluster.is_running:
            cluster.start(wait=False)
        cluster.wait_promoted(timeout_seconds=_END_SECONDS)
        missing = world.load.acknowledged - _commits(cluster)
        if missing:
            raise RestoreFailedError(f"{len(missing)} acknowledged commits are not there, the first is {min(missing)}")
    return restored


def _recover_cut_off(world: World, cluster: PostgresCluster) -> Restored:
    """Start with stores that go away after some WAL was read: the server must not open before the true end."""
    after = 2 + world.schedule.seed % 7
    for proxy in world.stage.proxies.values():
        proxy.add(ResetBefore(), key="/wal/", nth=after, times=None)
    try:
        _recover_until_it_ends(world, cluster)
        if not cluster.is_running:
            return Restored(cut_off=True)
        return Restored(early_open=not world.load.acknowledged <= _commits(cluster))
    finally:
        for proxy in world.stage.proxies.values():
            proxy.clear()


def _recover_until_it_ends(world: World, cluster: PostgresCluster) -> None:
    line = run(
        world,
        "wal_pipeline.cli.archive_get",
        *("--pgdata", str(cluster.pgdata), f"--retry-seconds={_RETRY_SECONDS}", "--print-restore-command"),
    ).strip()
    cluster.settings["restore_command"] = line
    cluster.start(wait=False)
    deadline = time.monotonic() + _END_SECONDS
    while cluster.is_running and not _is_open(cluster):
        if time.monotonic() > deadline:
            raise RestoreFailedError("a recovery without stores neither ended nor went on")
        time.sleep(0.1)


def _is_open(cluster: PostgresCluster) -> bool:
    return cluster.accepts_connections() and cluster.value("SELECT pg_is_in_recovery()") == "f"


def _commits(cluster: PostgresCluster) -> set[int]:
    return {int(line) for line in cluster.psql("SELECT n FROM ledger").split()}


@contextmanager
def _machine(world: World) -> Iterator[PostgresCluster]:
    """A machine that has nothing but the stores' settings."""
    folder = owned_folder("chaos-restored")
    cluster = PostgresCluster(
        world.stage.install, folder, settings={"archive_mode": "off"}, env=world.stage.store_environment(world.prefix)
    )
    try:
        yield cluster
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


def run(world: World, module: str, *words: str, env: dict[str, str] | None = None) -> str:
    """Type one of our commands as PostgreSQL's user and return what it prints. Raises: RestoreFailedError."""
    settings = world.stage.store_environment(world.prefix) if env is None else env
    as_user = (lambda command: command) if env is not None else postgres_user().wrap
    finished = subprocess.run(
        as_user([sys.executable, "-m", module, *words]),
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_SECONDS,
        env={**clean_environment(), **settings},
        cwd=PROJECT,
    )
    if finished.returncode != 0:
        raise RestoreFailedError(f"'{module} {' '.join(words)}' ended with {finished.returncode}:\n{finished.stderr}")
    return finished.stdout
