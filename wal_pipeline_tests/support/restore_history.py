"""Runs a pgbench cluster until it is lost, and notes moments, their commits and the archive that remains."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.archive_push import archiver
from wal_pipeline.wiring.backup import base_backup_taker
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.warm_commands import run_warm

_BALANCES = (
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
    " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment between two commits, with the marks and pgbench transactions that were committed by then."""

    at: str
    marks: int
    transactions: int


@dataclass(slots=True)
class History:
    """A cluster under load that archives. ``lose`` stops it and leaves only the stores.

    ``archiver_settings`` hold for what archives and takes base backups, and not for a restore.
    """

    install: PostgresInstall
    pair: S3Pair
    buckets: S3Buckets
    cluster: PostgresCluster
    folder: Path
    environment: dict[str, str]
    moments: dict[str, str] = field(default_factory=dict)
    archiver_settings: dict[str, str] = field(default_factory=dict)
    _marks: int = 0

    @classmethod
    @contextmanager
    def begin(
        cls,
        install: PostgresInstall,
        pair: S3Pair,
        *,
        wal_segment_size_mb: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator["History"]:
        """Make and start a cluster with pgbench's tables, which archives into a spool."""
        folder = owned_folder("history")
        spool = folder / "spool"
        spool.mkdir()
        os.chown(spool, postgres_user().uid, postgres_user().gid)
        archive = {
            "archive_mode": "on",
            "archive_command": f"cp %p {spool}/.%f && mv {spool}/.%f {spool}/%f",
            "track_commit_timestamp": "on",
            **(settings or {}),
        }
        cluster = PostgresCluster(install, settings=archive).initdb(wal_segment_size_mb=wal_segment_size_mb).start()
        buckets = pair.fresh_buckets()
        stores = {**pair.store_environment(buckets), "WAL_PIPELINE_CA_BUNDLE": str(pair.r2.ca_bundle)}
        history = cls(install, pair, buckets, cluster, folder, stores)
        try:
            cluster.pgbench_init()
            cluster.psql("CREATE TABLE marks (n int)")
            yield history
        finally:
            cluster.remove()
            shutil.rmtree(folder, ignore_errors=True)
            pair.remove_buckets(buckets)

    @property
    def pipeline(self) -> Pipeline:
        """The archiver's pipeline: settings with the spool, the server and a catalog of its own."""
        local = {
            "PG_WAL_ARCHIVE_DIR": str(self.folder / "spool"),
            "WAL_PIPELINE_CONNINFO": self.cluster.conninfo,
            "WAL_PIPELINE_STATE_DIR": str(self.folder / "state"),
            "WAL_PIPELINE_SETTLE_SECONDS": "0",
            "WAL_PIPELINE_CODEC": "zstd",
            "WAL_PIPELINE_BASE_BACKUP_STAGING_FOLDER": str(self.folder / "state" / "staging"),
            "PGBINDIR": str(self.install.bin_folder),
        }
        (self.folder / "state").mkdir(exist_ok=True)
        return Pipeline(load_settings({**self.environment, **local, **self.archiver_settings}))

    def archive(self) -> None:
        """Archive the spool to both stores."""
        for _ in archiver(self.pipeline).drain():
            pass

    def back_up(self, *, incremental: bool = False) -> str:
        """Take a base backup onto both stores and return its id."""
        outcome = base_backup_taker(self.pipeline, archive=self.archive).take(incremental=incremental)
        assert outcome.complete, outcome
        return outcome.result.manifest.backup_id

    def mark(self, name: str) -> None:
        """Commit a mark under load, and note a moment before the next mark is committed."""
        self._marks += 1
        self.cluster.psql(f"INSERT INTO marks VALUES ({self._marks})")  # noqa: S608
        self.moments[name] = self.cluster.value("SELECT clock_timestamp()")
        self.cluster.pgbench(transactions=20, clients=2)

    def moment(self, name: str) -> Moment:
        """Return the commits by a moment, from the server's own commit timestamps. Call it before ``lose``."""
        at = self.moments[name]
        count = f"SELECT count(*) FROM {{}} WHERE pg_xact_commit_timestamp(xmin) <= '{at}'"  # noqa: S608
        marks, transactions = (self.cluster.value(count.format(table)) for table in ("marks", "pgbench_history"))
        return Moment(at, int(marks), int(transactions))

    def end(self) -> Moment:
        """Return the commits by now, and finish the segment, so that all of them are archived."""
        found = self.cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM pgbench_history)")
        last = self.cluster.switch_wal()
        spool = self.folder / "spool"
        self.cluster.process.wait_until((spool / last).exists)
        self.archive()
        marks, transactions = found.split("|")
        return Moment("", int(marks), int(transactions))

    def lose(self) -> None:
        """Kill the server and remove its data directory, the spool and the catalog. Only the stores remain."""
        self.cluster.kill()
        for folder in (self.cluster.pgdata, self.folder / "spool", self.folder / "state"):
            shutil.rmtree(folder)

    def back_up_locally(self) -> str:
        """Take a base backup by reading the cluster's files, in small volumes, and return its id."""
        self.archiver_settings = {
            "PGDATA": str(self.cluster.pgdata),
            "WAL_PIPELINE_BACKUP_METHOD": "local",
            "WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB": "1",
        }
        return self.back_up()


@dataclass(frozen=True, slots=True)
class Restored:
    """A cluster that ``wal-pipeline restore --start --json`` brought back, and the command's output."""

    cluster: PostgresCluster
    answer: dict[str, Any]

    def moment(self) -> tuple[int, int]:
        """Return the number of marks and of pgbench transactions."""
        found = self.cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM pgbench_history)")
        marks, transactions = found.split("|")
        return int(marks), int(transactions)

    def balances_agree(self) -> bool:
        """Whether the sums over accounts, tellers, branches and history are equal."""
        return len(set(self.cluster.psql(_BALANCES).split("|"))) == 1


@contextmanager
def restored(history: History, *arguments: str) -> Iterator[Restored]:
    """Restore on a machine that has only credentials, start the server there, and stop it at the end."""
    folder = owned_folder("restored")
    cluster = PostgresCluster(history.install, folder)
    where = {
        "port": str(cluster.port),
        "unix_socket_directories": str(cluster.socket_folder),
        "listen_addresses": "127.0.0.1",
        "archive_mode": "off",
    }
    options = [f"--set={name}={value}" for name, value in where.items()]
    try:
        done = run_restore(history, "--pgdata", str(cluster.pgdata), "--start", "--json", *options, *arguments)
        assert done.returncode == 0, done.stderr
        yield Restored(cluster, json.loads(done.stdout))
    finally:
        if (cluster.pgdata / "postmaster.pid").exists():
            cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(cluster.pgdata))
        cluster.remove()


def run_restore(history: History, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``wal-pipeline restore`` as PostgreSQL's user, with the stores' settings only."""
    environment = {**history.environment, "PATH": os.environ["PATH"], "PGBINDIR": str(history.install.bin_folder)}
    return run_warm("restore", *arguments, env=environment, timeout_seconds=240, as_postgres=True)


def wait_until(is_so: Callable[[], bool], timeout_seconds: float = 60) -> None:
    """Return once ``is_so``. Raises: AssertionError."""
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
