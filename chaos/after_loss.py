"""Restores what the stores have after the loss of the host, also while a store lies about its pieces or is cut off.

Where the recovery stops for that, it is started again without the fault, as a person would.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from chaos.restoring import RestoreFailedError, commits, machine, run, tablespace_map
from chaos.schedule import STORES, Schedule
from chaos.stops import Faults, could_be_served, faults_of_stop, opened, read_stop
from chaos.troubles import either_store
from chaos.world import World
from testbed.faults import Flip, ResetBefore
from testbed.postgres import PostgresCluster
from testbed.processes import ServerError

_END_SECONDS: Final = 90
_RETRY: Final = ("--retry-seconds=60", "--retry-seconds=1")


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a restore brought back: the numbers of the ``commits``, and whether recovery was ``started_again``."""

    commits: set[int]
    started_again: bool


def counted_stores(schedule: Schedule) -> tuple[str, ...]:
    """Return the stores whose pieces a plan can count on.

    A store that lies while the plan is made is left out of it. What the plan counts on must come, whoever lies or is
    cut off later: recovery then stops, and comes to its end without the fault.
    """
    return either_store(schedule.lying_pieces) if schedule.lies_from_plan else STORES


def restore_after_loss(world: World, timeline: int | None) -> Recovered:
    """Restore to the end of what the stores have, and return the commits that are there.

    ``timeline`` is the original's where a copy archived beside it. A recovery that stops is started again once, where
    a fault was on and the stop is honest. Raises: RestoreFailedError.
    """
    with machine(world) as cluster, _no_fault_is_left(world):
        schedule = world.schedule
        if schedule.lies_from_plan:
            _lie(world)
        words = ("--pgdata", str(cluster.pgdata), *tablespace_map(world, cluster.folder), "--no-archiving", "--json")
        words = words if timeline is None else (*words, "--timeline", str(timeline))
        plan = run(world, "wal_pipeline.cli", "restore", *words)
        if not schedule.lies_from_plan:
            _lie(world)
        _cut_off(world, cluster)
        stopped = _recover(cluster)
        if stopped is not None:
            _require_honest(world, cluster, plan, stopped)
            _end_faults(world)
            again = _recover(cluster)
            if again is not None:
                raise RestoreFailedError(f"the server did not open where it was started again without faults: {again}")
        return Recovered(commits(cluster), started_again=stopped is not None)


def _recover(cluster: PostgresCluster) -> ServerError | None:
    """Start the server and wait until it is open; return the error where it ended instead."""
    cluster.start(wait=False)
    try:
        cluster.wait_promoted(timeout_seconds=_END_SECONDS)
    except ServerError as error:
        return error
    return None


def _require_honest(world: World, cluster: PostgresCluster, plan: str, stopped: ServerError) -> None:
    """Raise RestoreFailedError unless a fault was on, the log says which, and nothing was left to take instead."""
    faults = _faults(world.schedule)
    if not faults.stores or cluster.is_running:
        raise RestoreFailedError(f"the restored server did not open: {stopped}")
    stop = read_stop(cluster.log.read_text(errors="replace"))
    if stop is None:
        raise RestoreFailedError(f"the restored server ended and names no file that it could not restore: {stopped}")
    problems = list(faults_of_stop(stop, faults, left_out=_left_out(plan)))
    problems += ["it had opened before"] if opened(cluster) else []
    other = could_be_served(world, stop.name, faults)
    problems += [] if other is None else [other]
    if problems:
        raise RestoreFailedError(f"the recovery stopped and should not have: {'; '.join(problems)}\n{stopped}")


def _left_out(plan: str) -> str:
    notes: list[str] = [note for line in plan.splitlines() for note in json.loads(line).get("notes", ())]
    return "\n".join(note for note in notes if "left out of the plan" in note)


def _faults(schedule: Schedule) -> Faults:
    cut = schedule.cut_off_after_loss
    return Faults(schedule.lying_pieces, frozenset() if cut is None else frozenset({cut}))


def _lie(world: World) -> None:
    """Flip a bit of every piece that one store sends from now on, where the schedule says so."""
    store = world.schedule.lying_pieces
    if store is not None:
        pieces = f"/{world.stage.bucket(store)}/{world.prefix}/main/{world.system_identifier}/tail/"
        world.stage.proxies[store].add(Flip(), method="GET", key=pieces, times=None)


def _cut_off(world: World, cluster: PostgresCluster) -> None:
    """Cut one store off after some more requests, where the schedule says so, and let recovery not wait for it long."""
    store = world.schedule.cut_off_after_loss
    if store is not None:
        world.stage.proxies[store].add(ResetBefore(), nth=2 + world.schedule.seed % 7, times=None)
        line = cluster.run("postgres", "-D", str(cluster.pgdata), "-C", "restore_command").strip()
        if line.count(_RETRY[0]) != 1:
            raise RestoreFailedError(f"the restore_command is '{line}', expected {_RETRY[0]} in it")
        cluster.settings["restore_command"] = line.replace(*_RETRY)


def _end_faults(world: World) -> None:
    for proxy in world.stage.proxies.values():
        proxy.clear()


@contextmanager
def _no_fault_is_left(world: World) -> Iterator[None]:
    try:
        yield
    finally:
        _end_faults(world)
