"""Backs up and restores a schedule's cluster, also with stores that disappear during the recovery."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.schedule import STORES, Again, Recovery
from chaos.second_server import FIRST_FOREIGN
from chaos.stops import Faults, faults_of_stop, opened, read_stop
from chaos.world import World
from testbed.dagster_instance import PROJECT, clean_environment
from testbed.faults import Fault, Flip, ResetBefore, Truncate
from testbed.postgres import PostgresCluster
from testbed.postgres_install import owned_folder, postgres_user
from testbed.processes import ServerError

_COMMAND_SECONDS = 180
_END_SECONDS = 90
_RETRY_SECONDS = 1


class RestoreFailedError(AssertionError):
    """A backup or a restore failed, or did not bring back what was committed."""


def back_up(world: World) -> str:
    """Take a base backup onto both stores, and return the segment in which it begins. Raises: RestoreFailedError."""
    method, _ = world.schedule.methods[0]
    environment = {**world.environment, **world.schedule.backup_settings(method)}
    said = run(world, "wal_pipeline.cli", "backup", "--json", env=environment)
    return str(json.loads(said)["backup_id"])[-24:]


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore. ``cut_off``: the server ended while the stores were away, as it must.

    ``early_open``: the server opened without some commit.
    """

    cut_off: bool = False
    early_open: bool = False


def restore(world: World, timeline: int | None = None) -> Restored:
    """Restore to the end of the archive from the stores, and look for every commit and for none of another server.

    ``timeline`` is the original's where a copy archived beside it: without it the restore must be refused.

    Raises: RestoreFailedError.
    """
    with machine(world) as cluster, _trouble(world):
        words = ("--pgdata", str(cluster.pgdata), *tablespace_map(world, cluster.folder), "--no-archiving", "--json")
        if timeline is not None:
            _require_choice(world, words, timeline)
            words = (*words, "--timeline", str(timeline))
        if world.schedule.recovery is Recovery.STORE_DOWN:
            words = (*words, *_other_store(world, words))
        place(world, cluster, words)
        cut = world.schedule.recovery is Recovery.CUT_OFF
        restored = _recover_cut_off(world, cluster) if cut else Restored()
        if not cluster.is_running:
            cluster.start(wait=False)
        cluster.wait_promoted(timeout_seconds=_END_SECONDS)
        found = commits(cluster)
        if any(number >= FIRST_FOREIGN for number in found):
            raise RestoreFailedError("the restored server has commits of another server")
        missing = world.load.acknowledged.keys() - found
        if missing:
            raise RestoreFailedError(f"{len(missing)} acknowledged commits are not there, the first is {min(missing)}")
    return restored


def place(world: World, cluster: PostgresCluster, words: tuple[str, ...]) -> None:
    """Restore the files in the schedule's way: at once, over a killed restore's, or over files that were changed."""
    rng = random.Random(world.schedule.seed)  # noqa: S311 - a schedule must be the same each time
    if world.schedule.again is Again.KILLED:
        _kill_restore(world, words, rng.uniform(0.5, 4.0))
    run(world, "wal_pipeline.cli", "restore", *words)
    if world.schedule.again is Again.DELTA:
        change_files(cluster.pgdata, rng)
        run(world, "wal_pipeline.cli", "restore", *words, "--delta")


def _kill_restore(world: World, words: tuple[str, ...], seconds: float) -> None:
    """Kill a restore after so many seconds, unless it ends before."""
    command = [sys.executable, "-m", "wal_pipeline.cli", "restore", *words]
    environment = {**clean_environment(), **world.stage.store_environment(world.prefix)}
    process = subprocess.Popen(
        postgres_user().wrap(command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=PROJECT,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()


def change_files(pgdata: Path, rng: random.Random) -> None:
    """Change files of a data directory in which no server runs: other bytes, shorter, longer, gone, strange ones."""
    found = sorted(path for path in (pgdata / "base").rglob("*") if path.is_file() and path.stat().st_size)
    for number, path in enumerate(rng.sample(found, min(len(found), 25))):
        match number % 5:
            case 0:
                path.unlink()
            case 1:
                os.truncate(path, path.stat().st_size // 2)
            case 2:
                with path.open("ab") as file:
                    file.write(b"more")
            case 3:
                data = bytearray(path.read_bytes())
                data[rng.randrange(len(data))] ^= 1
                path.write_bytes(data)
            case _:
                shutil.copy2(path, path.with_name("99999"))


def _require_choice(world: World, words: tuple[str, ...], timeline: int) -> None:
    """Restore without naming a timeline: it must be refused with a HINT that names the original's."""
    try:
        run(world, "wal_pipeline.cli", "restore", *words)
    except RestoreFailedError as error:
        if f"--timeline {timeline}" in str(error):
            return
        raise
    raise RestoreFailedError("a restore followed a copy that archives, and nobody had chosen it")


def tablespace_map(world: World, folder: Path) -> tuple[str, ...]:
    """Return the options of ``restore`` that put the ledger's tablespace below ``folder``, where there is one."""
    if world.tablespace is None:
        return ()
    return ("--tablespace-map", f"{world.tablespace}={folder / 'tablespace'}")


def _troubled_store(world: World) -> str:
    return STORES[world.schedule.seed // 2 % 2]


def _other_store(world: World, words: tuple[str, ...]) -> tuple[str, str]:
    """Restore without a choice of stores. It must be refused with a HINT; return the option that the HINT names."""
    other = next(name for name in STORES if name != _troubled_store(world))
    try:
        run(world, "wal_pipeline.cli", "restore", *words)
    except RestoreFailedError as error:
        if f"--store {other}" in str(error):
            return "--store", other
        raise
    raise RestoreFailedError(f"a restore whose end {_troubled_store(world)} alone could prove was not refused")


@contextmanager
def _trouble(world: World) -> Iterator[None]:
    """Make one store useless for the whole restore, where the schedule says so. The other one must suffice."""
    store = _troubled_store(world)
    proxy = world.stage.proxies[store]
    if world.schedule.recovery is Recovery.STORE_DOWN:
        proxy.down()
    elif world.schedule.recovery is Recovery.STORE_LIES:
        objects = f"/{getattr(world.stage.buckets, store)}/{world.prefix}/"  # a list request has its key in the query
        wal = f"{objects}main/{world.system_identifier}/wal/"
        # A store that breaks off while a base backup's manifest is read counts as one that does not answer.
        lie: tuple[Fault, str] = (Flip(), objects) if world.schedule.seed % 2 else (Truncate(), wal)
        proxy.add(lie[0], method="GET", key=lie[1], times=None)
    try:
        yield
    finally:
        proxy.clear()
        proxy.up()


def _recover_cut_off(world: World, cluster: PostgresCluster) -> Restored:
    """Start with stores that disappear after some WAL was read. The server must not open before the true end."""
    after = 2 + world.schedule.seed % 7
    for proxy in world.stage.proxies.values():
        proxy.add(ResetBefore(), key="/wal/", nth=after, times=None)
    try:
        _recover_until_it_ends(world, cluster)
        if not cluster.is_running:
            _require_named_stop(cluster)
            return Restored(cut_off=True)
        return Restored(early_open=not world.load.acknowledged.keys() <= commits(cluster))
    finally:
        for proxy in world.stage.proxies.values():
            proxy.clear()


def _require_named_stop(cluster: PostgresCluster) -> None:
    """Raise RestoreFailedError unless the server says which file it could not have and why, and never opened."""
    stop = read_stop(cluster.log.read_text(errors="replace"))
    said = cluster.process.log_tail()
    if stop is None:
        raise RestoreFailedError(f"the cut off recovery ended and names no file that it could not restore:\n{said}")
    problems = list(faults_of_stop(stop, Faults(cut_off=frozenset(STORES)), left_out=""))
    problems += ["it had opened before"] if opened(cluster) else []
    if problems:
        raise RestoreFailedError(f"the cut off recovery ended: {'; '.join(problems)}\n{said}")


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
            raise RestoreFailedError("a recovery without stores neither ended nor continued")
        time.sleep(0.1)


def _is_open(cluster: PostgresCluster) -> bool:
    try:
        return cluster.accepts_connections() and cluster.value("SELECT pg_is_in_recovery()") == "f"
    except ServerError:  # it ended between the two looks
        return False


def commits(cluster: PostgresCluster) -> set[int]:
    """Return the numbers of the commits that a server has."""
    return {int(line) for line in cluster.psql("SELECT n FROM ledger").split()}


@contextmanager
def machine(world: World) -> Iterator[PostgresCluster]:
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
    """Run one of our commands as PostgreSQL's user and return its output. Raises: RestoreFailedError."""
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
