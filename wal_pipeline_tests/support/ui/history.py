"""Plays the histories that the browser looks at: one cluster, and a fleet of three."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from testbed.dagster_instance import DagsterInstance
from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from testbed.seaweed import SeaweedServer
from testbed.tls import TlsFiles
from wal_pipeline_tests.support.ui.cluster import STORES, WatchedCluster, start_cluster

ORDERS: Final = "orders"
NOTE: Final = "before the upgrade of the shop"
LATER_NOTE: Final = "after the upgrade"
FLEET: Final = ("billing", "orders", "users")
_PAUSE_SECONDS = 1.0  # so that a gap is so long that the bar of the windows shows it
_SHIPPED: Final = {"WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "1", "WAL_PIPELINE_HEALTH_INTERVAL_SECONDS": "10"}
_MATERIALIZED = """
query Materialized($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) { ... on Asset { assetMaterializations { partition } } }
}"""
_RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_RUNS = "query Runs($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId } } } }"
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass(frozen=True, slots=True)
class Orders:
    """One cluster in its own Dagster, idle since its history ended.

    ``names``: the segments with commits, in order, all on both stores. ``screens``: what ``status`` printed at a
    moment of the history, by its name. ``target``: a moment between two commits, which can be restored.
    """

    cluster: WatchedCluster
    dagster: DagsterInstance
    names: list[str]
    target: str
    screens: Mapping[str, str]

    def run(self, job: str, config: Mapping[str, Any] | None = None) -> str:
        """Run a job, wait for its end, and return its run's id."""
        run_id = self.dagster.launch_job(job, config)
        wait(self.dagster, lambda: run_status(self.dagster, run_id) in _ENDED)
        return run_id

    def archiving_run(self) -> str:
        """The id of the newest run that archived WAL."""
        found = self.dagster.graphql(_RUNS, filter={"pipelineName": "archive_wal", "statuses": ["SUCCESS"]})
        return str(found["runsOrError"]["results"][0]["runId"])

    def missing(self, store: str) -> set[str]:
        """The names of the history that Dagster does not show as materialized on a store."""
        return set(self.names) - materialized(self.dagster, self.cluster.name, store)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Three clusters in one Dagster. ``orders`` is healthy, r2 of ``billing`` is down, ``users`` has a past gap.

    ``gone``: the segments that b2 of ``users`` lost. ``screens``: what ``status`` printed, by the cluster's name.
    """

    clusters: Mapping[str, WatchedCluster]
    dagster: DagsterInstance
    gone: list[str]
    screens: Mapping[str, str]


@contextmanager
def start_orders(folder: Path, install: PostgresInstall, pair: S3Pair) -> Iterator[Orders]:
    """Start Dagster and a cluster, and play: base backup, WAL with commits, a drill, a second base backup, cost."""
    with ExitStack() as stack:
        cluster = stack.enter_context(start_cluster(ORDERS, install, pair))
        dagster = stack.enter_context(DagsterInstance(folder / "dagster", _settings(cluster), schedules=True))
        screens = {}
        cluster.command("backup", "--note", NOTE)
        screens["new"] = cluster.terminal("status")
        names = cluster.write(5)
        target = cluster.commit()
        names += cluster.write(3)
        cluster.wait_archived(names)
        orders = Orders(cluster, dagster, names, target, screens)
        wait(dagster, lambda: not any(orders.missing(store) for store in STORES))
        screens["healthy"] = cluster.terminal("status")
        orders.run("recovery_drill")
        orders.run("take_base_backup", {"ops": {"stream_base_backup": {"config": {"note": LATER_NOTE}}}})
        for job in ("report_cost", "check_archive"):
            orders.run(job)
        yield orders


@contextmanager
def start_fleet(folder: Path, install: PostgresInstall, pair: S3Pair, tls: TlsFiles) -> Iterator[Fleet]:
    """Start three clusters in one Dagster, and let each have its history."""
    with ExitStack() as stack:
        own_r2 = stack.enter_context(SeaweedServer(folder / "r2", name="r2", tls=tls))
        pairs = {"billing": S3Pair(own_r2, pair.b2), "orders": pair, "users": pair}
        clusters = {name: stack.enter_context(start_cluster(name, install, pairs[name])) for name in FLEET}
        first, *others = FLEET
        dagster = DagsterInstance(
            folder / "dagster",
            _settings(clusters[first]),
            schedules=True,
            location=first,
            fleet={name: _settings(clusters[name]) for name in others},
        )
        stack.enter_context(dagster)
        with ThreadPoolExecutor(2) as pool:
            names = dict(zip(FLEET, pool.map(_begin, clusters.values()), strict=True))
        own_r2.stop()
        late = clusters["billing"].write(2)
        gone = names["users"][1:5]
        _lose(clusters["users"], gone)
        screens = {"users": clusters["users"].terminal("status")}
        clusters["billing"].wait_archived(late, "b2")
        for name in FLEET:
            wait(dagster, _shows(dagster, name, set(names[name]) - set(gone)))
        yield Fleet(clusters, dagster, gone, screens)


@contextmanager
def start_shop(
    folder: Path, install: PostgresInstall, pair: S3Pair
) -> Iterator[tuple[WatchedCluster, DagsterInstance]]:
    """Start Dagster and a cluster whose open segment is shipped each second: base backup, then three commits."""
    with ExitStack() as stack:
        cluster = stack.enter_context(start_cluster("shop", install, pair, more=_SHIPPED))
        dagster = stack.enter_context(DagsterInstance(folder / "dagster", _settings(cluster), schedules=True))
        cluster.command("backup")
        cluster.commit(3)
        wait_shipped(cluster, dagster)
        yield cluster, dagster


def wait_shipped(cluster: WatchedCluster, dagster: DagsterInstance) -> None:
    """Wait until no store is behind the cluster."""
    wait(dagster, lambda: all(behind(cluster, store) == 0 for store in STORES))


def behind(cluster: WatchedCluster, store: str) -> float | None:
    """Return how far a store is behind, as status says it; None where nothing is known."""
    tail = json.loads(cluster.command("status", "--json"))["stores"][store]["tail"]
    return tail["behind_seconds"] if tail["state"] == "running" and tail["pieces"] else None


def wait(dagster: DagsterInstance, is_done: Callable[[], bool], *, timeout_seconds: float = 150) -> None:
    """Wait until Dagster has done something. A failure shows the daemon's log."""
    deadline = time.monotonic() + timeout_seconds
    while not is_done():
        assert time.monotonic() < deadline, f"not done; the daemon says:\n{dagster.daemon.log_tail(60)}"
        time.sleep(0.3)


def run_status(dagster: DagsterInstance, run_id: str) -> str:
    """The status of a run, such as ``SUCCESS``."""
    return str(dagster.graphql(_RUN, id=run_id)["runOrError"]["status"])


def materialized(dagster: DagsterInstance, cluster: str, store: str, kind: str = "wal_segment") -> set[str]:
    """The WAL files, or base backups, of a cluster of which Dagster has ever recorded a copy on a store."""
    found = dagster.graphql(_MATERIALIZED, key={"path": [cluster, kind, store]})["assetOrError"]
    return {item["partition"] for item in found.get("assetMaterializations", ())}


def _shows(dagster: DagsterInstance, cluster: str, names: set[str]) -> Callable[[], bool]:
    return lambda: materialized(dagster, cluster, "b2") >= names


def _settings(cluster: WatchedCluster) -> dict[str, str]:
    return {"WAL_PIPELINE_ENV_FILE": str(cluster.env_file)}


def _begin(cluster: WatchedCluster) -> list[str]:
    """Take a base backup and write segments with commits."""
    cluster.command("backup")
    names = cluster.write(6, pause_seconds=_PAUSE_SECONDS)
    cluster.wait_archived(names)
    return names


def _lose(cluster: WatchedCluster, names: list[str]) -> None:
    """Delete these copies on b2, find that out, and begin a new window with a base backup."""
    cluster.delete("b2", names)
    found = json.loads(cluster.command("verify", "--json", expect=(1,)))
    assert found, "a verification that fails prints what it found"
    cluster.command("backup", expect=(0, 1))
    cluster.wait_archived(cluster.write(1))
