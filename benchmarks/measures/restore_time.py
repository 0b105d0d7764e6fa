"""Measures how near the predicted time of a restore is to the time that it takes."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Samples
from testbed.postgres import PostgresCluster
from testbed.postgres_install import give_to_postgres, owned_folder, postgres_18
from testbed.s3_pair import S3Buckets
from wal_pipeline.postgres.archive_command import durable_archive_command

KEYS: Final = ("restore_time_first_error", "restore_time_error", "restore_time_twice_the_wal_error")
_MB_A_SCALE: Final = 15
_SETTINGS: Final = {"archive_mode": "on", "max_wal_size": "16GB", "shared_buffers": "256MB", "checkpoint_timeout": "1h"}


@dataclass(frozen=True, slots=True)
class PredictedCluster:
    """A living cluster with one base backup, whose restores are predicted before they are done."""

    cluster: PostgresCluster
    environment: Mapping[str, str]
    spool: Path

    def write(self, transactions: int) -> None:
        """Let pgbench write, and archive that."""
        self.cluster.pgbench(transactions=transactions)
        last = self.cluster.switch_wal()
        self.cluster.process.wait_until((self.spool / last).exists)
        self.command("archive")

    def restore(self) -> tuple[float, float]:
        """Restore to the end and start the server; return the seconds that were predicted, and those that it took."""
        folder = owned_folder("bench-predicted")
        restored = PostgresCluster(self.cluster.install, folder)
        where = {"port": str(restored.port), "unix_socket_directories": str(restored.socket_folder)}
        words = [f"--pgdata={restored.pgdata}", "--no-archiving", "--start"]
        words += [f"--set={name}={value}" for name, value in where.items()]
        try:
            answer = self.command("restore", *words)
        finally:
            if (restored.pgdata / "postmaster.pid").exists():
                restored.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(restored.pgdata))
            restored.remove()
        if answer["predicted_seconds"] is None:
            raise ours.BenchError(f"the restore was not predicted: {answer['forecast']['not_known']}")
        return answer["predicted_seconds"], answer["took_seconds"]

    def command(self, *words: str) -> dict[str, Any]:
        """Run ``wal-pipeline`` as PostgreSQL's user, and return its answer."""
        return ours.command(self.environment, *words, "--json", as_postgres=True).answer


def measure(bench: Bench) -> list[Figure]:
    """Return the errors of predictions: after two drills alone, with restores measured too, and for twice the WAL."""
    megabytes, transactions = bench.size(3000, 200), bench.size(20_000, 2000)
    with bench.buckets() as buckets, _cluster(bench, buckets, megabytes) as made:
        made.write(transactions)
        for seed in (1, 2):
            made.command("drill", f"--seed={seed}")
        samples: Samples = {"predicted": [], "took": []}
        for number in range(bench.repeats):
            _note(samples, *made.restore())
            bench.say(f"round {number + 1}: predicted {samples['predicted'][-1]:.1f}, took {samples['took'][-1]:.1f}")
        made.write(transactions)
        twice: Samples = {"predicted": [], "took": []}
        _note(twice, *made.restore())
    return _figures(samples, twice, f"{megabytes} MB, one store, zstd 3, with pg_verifybackup")


def _note(samples: Samples, predicted: float, took: float) -> None:
    samples["predicted"].append(predicted)
    samples["took"].append(took)


def _errors(samples: Samples) -> list[float]:
    pairs = zip(samples["predicted"], samples["took"], strict=True)
    return [abs(took - predicted) / predicted for predicted, took in pairs]


def _figures(samples: Samples, twice: Samples, note: str) -> list[Figure]:
    def told(of: Samples, number: int) -> str:
        return f"{note}: predicted {of['predicted'][number]:.1f} s, took {of['took'][number]:.1f} s"

    return [
        Figure("restore_time_first_error", "restore: share by which it differs from its prediction, after two drills",
               _errors(samples)[0], "x", "<= 0.3", told(samples, 0), samples),
        Figure("restore_time_error", "restore: share by which it differs from its prediction, after restores too",
               median(_errors(samples)[1:] or _errors(samples)), "x", "<= 0.3", told(samples, -1)),
        Figure("restore_time_twice_the_wal_error", "restore with twice the WAL that was ever measured: the same",
               _errors(twice)[0], "x", "<= 0.3", told(twice, 0), twice),
    ]  # fmt: skip


@contextmanager
def _cluster(bench: Bench, buckets: S3Buckets, megabytes: int) -> Iterator[PredictedCluster]:
    folder = owned_folder("bench")
    cluster = PostgresCluster(postgres_18(), folder / "cluster", settings=_SETTINGS).initdb()
    more = {
        "WAL_PIPELINE_STORES": "r2",
        "WAL_PIPELINE_CONNINFO": cluster.conninfo,
        "WAL_PIPELINE_DRILL_FOLDER": str(folder / "drill"),
        "WAL_PIPELINE_DRILL_AMCHECK": "no",
        "PGDATA": str(cluster.pgdata),
        "PGBINDIR": str(cluster.install.bin_folder),
    }
    environment = ours.settings(bench.stores, buckets, folder, None, more=more)
    cluster.settings["archive_command"] = durable_archive_command(folder / "spool")
    give_to_postgres(folder)
    try:
        cluster.start()
        bench.say(f"restore_time: making a cluster of {megabytes} MB")
        cluster.pgbench_init(scale=megabytes // _MB_A_SCALE)
        made = PredictedCluster(cluster, environment, folder / "spool")
        made.command("archive")
        made.command("backup")
        yield made
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)
