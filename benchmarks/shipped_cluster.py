"""Runs a PostgreSQL 18 cluster whose open segment is shipped and whose finished segments are archived."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import ours
from benchmarks.bench import PROJECT, Bench
from benchmarks.ours import BenchError
from testbed.dagster_instance import clean_environment
from testbed.postgres import PostgresCluster
from testbed.postgres_install import give_to_postgres, owned_folder, postgres_18
from testbed.processes import ChildProcess
from wal_pipeline.postgres.archive_command import durable_archive_command

STORES: Final = ("r2", "b2")
_SETTINGS: Final = {"archive_mode": "on", "archive_timeout": "0", "max_wal_size": "4GB", "checkpoint_timeout": "1h"}
_FOREVER: Final = "1000000"
_CATCH_UP_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class ShippedCluster:
    """The cluster and its shipper, whose output is ``log``."""

    cluster: PostgresCluster
    shipper: ChildProcess

    def lines(self) -> list[dict[str, Any]]:
        """Return what the shipper has said: see ``benchmarks.ship_process``."""
        text = self.shipper.log.read_text(errors="replace") if self.shipper.log.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def flushed_lsn(self) -> int:
        """Return how far the server has flushed its WAL."""
        return int(self.cluster.value("SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint"))

    def shipped(self) -> dict[str, list[tuple[float, int]]]:
        """Return by store when which position was verified there."""
        found: dict[str, list[tuple[float, int]]] = {store: [] for store in STORES}
        for line in self.lines():
            if "end_lsn" in line:
                found[line["store"]].append((line["at"], line["end_lsn"]))
        return found

    def wait_shipped(self) -> None:
        """Wait until both stores have what the server has flushed so far. Raises: BenchError."""
        wanted, deadline = self.flushed_lsn(), time.monotonic() + _CATCH_UP_SECONDS
        while not all(any(lsn >= wanted for _, lsn in verified) for verified in self.shipped().values()):
            if not self.shipper.is_running or time.monotonic() > deadline:
                raise BenchError(f"the open segment was not shipped:\n{self.shipper.log_tail()}")
            time.sleep(0.2)


@contextmanager
def shipped_cluster(bench: Bench, interval_seconds: float) -> Iterator[ShippedCluster]:
    """Start the cluster, an archiving run that lingers, and the shipper, and stop them with the block."""
    folder = owned_folder("bench-ship")
    with bench.buckets() as buckets, bench.scratch("ship") as scratch:
        cluster = PostgresCluster(postgres_18(), folder, settings=_SETTINGS, durable=True).initdb()
        cluster.settings["archive_command"] = durable_archive_command(folder / "spool")
        more = {
            "WAL_PIPELINE_CONNINFO": cluster.conninfo,
            "PGDATA": str(cluster.pgdata),
            "WAL_PIPELINE_SHIP_INTERVAL_SECONDS": f"{interval_seconds:g}",
        }
        environment = ours.settings(bench.stores, buckets, folder, None, more=more)
        give_to_postgres(folder / "spool")
        words = ("-m", "wal_pipeline.cli", "archive", "--linger", _FOREVER)
        archiver = _process("archive", scratch, environment, *words)
        shipper = _process("ship", scratch, environment, "-m", "benchmarks.ship_process")
        try:
            cluster.start()
            archiver.start()
            shipper.start()
            cluster.psql("CREATE TABLE ledger (n bigint PRIMARY KEY)")
            shipped = ShippedCluster(cluster, shipper)
            shipped.wait_shipped()
            yield shipped
        finally:
            shipper.kill()
            archiver.kill()
            cluster.remove()


def _process(name: str, folder: Path, environment: Mapping[str, str], *words: str) -> ChildProcess:
    return ChildProcess(
        name,
        (sys.executable, *words),
        log=folder / f"{name}.log",
        env={**clean_environment(), **environment},
        cwd=PROJECT,
    )
