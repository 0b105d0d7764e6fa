"""Runs a cluster that archives into a spool, two S3 servers, and the real daemon with its code server."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.dagster_instance import PROJECT, DagsterInstance
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.processes import lock_holder
from testbed.s3_pair import S3Buckets, S3Pair
from testbed.stored_wal import StoredWal
from testbed.tls import TlsFiles
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.spool import LOCK_NAME
from wal_pipeline.wal.names import parse_file_name
from wal_pipeline_tests.support.warm_commands import run_warm

STORES = ("r2", "b2")
_JOB = "archive_wal"
_QUICK = {
    "WAL_PIPELINE_MAX_BACKOFF_SECONDS": "2",
    "WAL_PIPELINE_LINGER_SECONDS": "2",
    # On a busy machine a code server may take seconds to say that a run lives; the run must not count as lost by then.
    "WAL_PIPELINE_LOST_RUN_SECONDS": "8",
    "WAL_PIPELINE_SENSOR_INTERVAL_SECONDS": "1",
    "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": "off",
}
_RUNS = """
query Runs($filter: RunsFilter!) {
  runsOrError(filter: $filter) {
    ... on Runs { results { runId status startTime endTime tags { key value } } }
  }
}"""
_MATERIALIZATIONS = """
query Materializations($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) { ... on Asset { assetMaterializations { partition runId } } }
}"""
_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as Dagster recorded it. Times are in seconds since 1970."""

    run_id: str
    status: str
    started: float | None
    ended: float | None
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class DaemonScene:
    """The running servers, and the questions that a test asks them."""

    cluster: PostgresCluster
    pair: S3Pair
    buckets: S3Buckets
    dagster: DagsterInstance
    spool: Path

    def write_segments(self, count: int) -> list[str]:
        """Finish ``count`` segments, which PostgreSQL then puts into the spool, and return their names in order."""
        return [self.cluster.switch_wal() for _ in range(count)]

    def has_left(self, names: Collection[str]) -> bool:
        """Whether PostgreSQL has put each of these files into the spool, and none is there any more."""
        return set(names) <= self.cluster.archived() and not self.spooled() & set(names)

    def spooled(self) -> set[str]:
        """PostgreSQL's files in the spool."""
        return {path.name for path in self.spool.iterdir() if parse_file_name(path.name)}

    def stored(self, store: str) -> StoredWal:
        """The objects of a store now."""
        server, bucket = {"r2": (self.pair.r2, self.buckets.r2), "b2": (self.pair.b2, self.buckets.b2)}[store]
        return StoredWal.list(server, bucket)

    def objects(self, store: str) -> dict[str, Any]:
        """The time at which each object of a store was written, by file name."""
        stored = self.stored(store)
        client = stored.server.client()
        return {
            name: client.head_object(Bucket=stored.bucket, Key=key)["LastModified"] for name, key in stored.keys.items()
        }

    @property
    def state(self) -> Path:
        """The program's state folder, with the catalog."""
        return Path(self.dagster.environment["WAL_PIPELINE_STATE_FOLDER"])

    def recorded(self, store: str) -> set[str]:
        """The files of which the catalog has a verified copy on a store."""
        catalog = open_catalog(f"sqlite:///{self.state / 'catalog.sqlite'}", "main")
        try:
            return {
                one.name for one in catalog.files.copies() if (one.store, one.status) == (store, CopyStatus.VERIFIED)
            }
        finally:
            catalog.close()

    def command(self, *words: str, code: int = 0) -> str:
        """Run ``wal-pipeline`` with the scene's settings, require its exit code, and return its output."""
        done = run_warm(*words, env=self.dagster.environment, cwd=PROJECT)
        assert done.returncode == code, done.stderr
        return done.stdout

    def hide(self, store: str, names: list[str]) -> None:
        """Delete copies behind the program's back."""
        stored = self.stored(store)
        for name in names:
            stored.server.client().delete_object(Bucket=stored.bucket, Key=stored.keys[name])

    def wait_archived(self, names: list[str], *, timeout_seconds: float = 90) -> None:
        """Wait until these files have come to the spool and left it, then prove each copy on both stores."""
        self.wait(lambda: self.has_left(names), timeout_seconds=timeout_seconds)
        for store in STORES:
            assert self.stored(store).verify(self.cluster.pgdata / "pg_wal", names) == len(names)

    def wait_recorded(self, names: list[str], stores: Sequence[str] = STORES) -> None:
        """Wait until Dagster shows these files: a run writes its records about a second later."""
        for store in stores:
            self.wait(lambda store=store: self.materialized_by(store).keys() >= set(names))  # type: ignore[misc]

    def wait(self, is_done: Callable[[], bool], *, timeout_seconds: float = 90) -> None:
        """Wait until the daemon has done something. A failure shows the daemon's log."""
        begun = time.monotonic()
        deadline = begun + timeout_seconds
        while not is_done():
            looked = time.monotonic()
            assert looked < deadline, f"not done; the daemon says:\n{self.dagster.daemon.log_tail(60)}"
            # A question to the web server costs more than all that is waited for, if it is asked without a rest.
            time.sleep(min(max(0.1, 5 * (looked - begun)), 1.0))
            begun = time.monotonic()

    def runs(self, **tags: str) -> list[Run]:
        """Return the runs with these tags, the newest first."""
        wanted = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        found = self.dagster.graphql(_RUNS, filter=wanted)["runsOrError"]["results"]
        return [Run(run["runId"], run["status"], run["startTime"], run["endTime"], _tags(run["tags"])) for run in found]

    def sensor_runs(self) -> list[Run]:
        """Return the archiving runs, the newest first, and require that the sensor started them."""
        return self.runs(**{"dagster/sensor_name": "spool_sensor"})

    def materialized_by(self, store: str) -> dict[str, list[str]]:
        """Return the runs that recorded each file's copy on a store, the newest first."""
        key = {"path": ["main", "wal_segment", store]}
        found: dict[str, list[str]] = {}
        for item in self.dagster.graphql(_MATERIALIZATIONS, key=key)["assetOrError"]["assetMaterializations"]:
            found.setdefault(item["partition"], []).append(item["runId"])
        return found

    def backfill(self, store: str, names: list[str]) -> str:
        """Launch a backfill of these partitions, as the UI does, and return its id."""
        params = {"partitionNames": names, "assetSelection": [{"path": ["main", "wal_segment", store]}]}
        answer = self.dagster.graphql(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", json.dumps(answer)
        return str(answer["backfillId"])

    def archiving_pid(self) -> int | None:
        """Return the process that holds the spool's lock; None where no run is at work."""
        return lock_holder(self.spool / LOCK_NAME)

    def wait_archiving(self) -> int:
        """Wait until a run is at work and return its process id."""
        self.wait(lambda: self.archiving_pid() is not None)
        pid = self.archiving_pid()
        assert pid is not None
        return pid


@contextmanager
def start_daemon_scene(
    install: PostgresInstall,
    folder: Path,
    tls: TlsFiles,
    *,
    secret_tail: str = "",
    instance_file: Path = PROJECT / "dagster.yaml",
    prepare: Callable[[PostgresCluster, S3Pair], Mapping[str, str]] = lambda _cluster, _pair: {},
) -> Iterator[DaemonScene]:
    """Start all servers, with 1 MiB segments, so that there are many.

    ``prepare`` gets the running cluster and stores, and returns settings that win over the scene's own.
    """
    with ExitStack() as stack:
        pair = stack.enter_context(S3Pair.start(folder / "s3", tls=tls, secret_tail=secret_tail))
        buckets = pair.fresh_buckets()
        home = owned_folder("daemon")
        spool = home / "spool"
        settings = {
            "archive_mode": "on",
            "archive_library": "basic_archive",
            "basic_archive.archive_directory": str(spool),
            "wal_keep_size": "8GB",
        }
        cluster = PostgresCluster(install, home, settings=settings).initdb(wal_segment_size_mb=1)
        stack.callback(cluster.remove)
        spool.mkdir()
        os.chown(spool, home.stat().st_uid, home.stat().st_gid)
        environment = {
            **pair.store_environment(buckets),
            **_QUICK,
            "WAL_PIPELINE_CA_BUNDLE": str(tls.ca_bundle),
            "WAL_PIPELINE_CONNINFO": cluster.conninfo,
            "WAL_PIPELINE_STATE_FOLDER": str(folder / "state"),
            "PG_WAL_ARCHIVE_DIR": str(spool),
            "PGBINDIR": str(install.bin_folder),
        }
        cluster.start()
        environment |= prepare(cluster, pair)
        dagster = stack.enter_context(DagsterInstance(folder / "dagster", environment, instance_file=instance_file))
        yield DaemonScene(cluster, pair, buckets, dagster, spool)


def _tags(found: list[dict[str, str]]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in found}
