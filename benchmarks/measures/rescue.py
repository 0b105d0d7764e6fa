"""Measures the search, and how one table of a cluster of ten databases comes back against a restore of all of it."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Samples, alternately, ratio
from benchmarks.measures import find
from testbed.postgres import PostgresCluster
from testbed.postgres_install import give_to_postgres, owned_folder, postgres_18
from testbed.s3_pair import S3Buckets
from wal_pipeline.postgres.archive_command import durable_archive_command

KEYS: Final = (*find.KEYS, "rescue_vs_full_restore", "rescue_bytes_vs_full_restore")
_DATABASES: Final = 10
_TABLES: Final = 5
_ROWS_A_MB: Final = 5800  # of the table below, with its index
_SETTINGS: Final = {"archive_mode": "on", "max_wal_size": "16GB", "shared_buffers": "256MB", "checkpoint_timeout": "1h"}
_FILL: Final = """
\\set rows {rows}
CREATE TABLE public.t{number} (id int PRIMARY KEY, label text, other text);
INSERT INTO public.t{number} SELECT i, md5(i::text || 'a{number}'), md5(i::text || 'b') || md5(i::text || 'c')
FROM generate_series(1, :rows) i;
"""


@dataclass(frozen=True, slots=True)
class DroppedTable:
    """A living cluster in which a table of one of ten databases was dropped, by the transaction ``xid``."""

    cluster: PostgresCluster
    environment: Mapping[str, str]
    xid: str
    rows: int
    sizes: dict[str, list[float]] = field(default_factory=lambda: {"rescue bytes": [], "restore bytes": []})
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def rescue(self) -> float:
        """Bring the table back into another database; return the seconds of the command."""
        words = ["--table=public.t1", "--database=shop3", f"--before-xid={self.xid}", "--into=dbname=shop4"]
        run = self._command("rescue", *words, f"--as=back{next(self.numbers)}")
        if run.answer["rows"] != self.rows:
            raise ours.BenchError(f"{run.answer['rows']} rows came back, expected {self.rows}")
        self.sizes["rescue bytes"].append(run.answer["downloaded_bytes"])
        return run.seconds

    def restore(self) -> float:
        """Restore the whole cluster to the same moment and start it; return the seconds of the command."""
        folder = owned_folder("bench-whole")
        restored = PostgresCluster(self.cluster.install, folder)
        where = {"port": str(restored.port), "unix_socket_directories": str(restored.socket_folder)}
        words = [f"--pgdata={restored.pgdata}", f"--to-xid={self.xid}", "--exclusive", "--no-archiving", "--start"]
        words += [f"--set={name}={value}" for name, value in where.items()]
        try:
            run = self._command("restore", *words)
            self.sizes["restore bytes"].append(run.answer["downloaded_bytes"])
            return run.seconds
        finally:
            if (restored.pgdata / "postmaster.pid").exists():
                restored.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(restored.pgdata))
            restored.remove()

    def _command(self, *words: str) -> ours.CommandRun:
        return ours.command(self.environment, *words, "--json", as_postgres=True)


def measure(bench: Bench) -> list[Figure]:
    """Return the rate of a search, and a rescue's share of the time and the bytes of a full restore."""
    found = find.measure(bench)
    megabytes = bench.size(5000, 200)
    with bench.buckets() as buckets, _dropped_table(bench, buckets, megabytes) as dropped:
        contenders: dict[str, Callable[[], float]] = {"rescue": dropped.rescue, "restore": dropped.restore}
        samples = alternately(contenders, bench.repeats, bench.say)
    return [*found, *_figures({**samples, **dropped.sizes}, megabytes)]


def _figures(samples: Samples, megabytes: int) -> list[Figure]:
    table = megabytes // _DATABASES // _TABLES
    note = (
        f"a table of {table} MB out of {megabytes} MB in {_DATABASES} databases, one store, zstd 3: "
        f"{median(samples['rescue']):.1f} s and {median(samples['rescue bytes']) / 1e6:.0f} MB against "
        f"{median(samples['restore']):.1f} s and {median(samples['restore bytes']) / 1e6:.0f} MB"
    )
    return [
        Figure("rescue_vs_full_restore", "rescue of one table: seconds by those of a full restore to the same moment",
               ratio(samples, "rescue", "restore"), "x", "<= 0.5", note, samples),
        Figure("rescue_bytes_vs_full_restore", "rescue of one table: downloaded bytes by those of a full restore",
               ratio(samples, "rescue bytes", "restore bytes"), "x", "<= 0.5", note),
    ]  # fmt: skip


@contextmanager
def _dropped_table(bench: Bench, buckets: S3Buckets, megabytes: int) -> Iterator[DroppedTable]:
    """Make the cluster and its base backup, then drop the table while pgbench writes."""
    folder = owned_folder("bench")
    cluster = PostgresCluster(postgres_18(), folder / "cluster", settings=_SETTINGS).initdb()
    environment = _environment(bench, buckets, folder, cluster)
    cluster.settings["archive_command"] = durable_archive_command(folder / "spool")
    give_to_postgres(folder)
    try:
        cluster.start()
        bench.say(f"rescue: making {_DATABASES} databases of {megabytes // _DATABASES} MB")
        rows = _fill(cluster, megabytes)
        cluster.pgbench_init()
        ours.command(environment, "archive", "--json", as_postgres=True)
        backup = ours.command(environment, "backup", "--json", as_postgres=True)
        bench.say(f"rescue: base backup in {backup.seconds:.0f} s")
        cluster.pgbench(transactions=bench.size(5000, 500))
        dropping = "BEGIN;\nSELECT pg_current_xact_id();\nDROP TABLE public.t1;\nCOMMIT;"
        xid = cluster.psql(dropping, database="shop3")
        cluster.pgbench(transactions=100)
        last = cluster.switch_wal()
        cluster.process.wait_until((folder / "spool" / last).exists)
        ours.command(environment, "archive", "--json", as_postgres=True)
        yield DroppedTable(cluster, environment, xid, rows)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _environment(bench: Bench, buckets: S3Buckets, folder: Path, cluster: PostgresCluster) -> Mapping[str, str]:
    more = {
        "WAL_PIPELINE_STORES": "r2",
        "WAL_PIPELINE_CONNINFO": cluster.conninfo,
        "PGDATA": str(cluster.pgdata),
        "PGBINDIR": str(cluster.install.bin_folder),
        # Ten databases shall lie in more volumes than ten in a small cluster too.
        **({"WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB": "16"} if bench.quick else {}),
    }
    return ours.settings(bench.stores, buckets, folder, None, more=more)


def _fill(cluster: PostgresCluster, megabytes: int) -> int:
    """Fill one database, and copy it; return the rows of one of its tables."""
    rows = megabytes // _DATABASES // _TABLES * _ROWS_A_MB
    cluster.psql("CREATE DATABASE shop0")
    for number in range(1, _TABLES + 1):
        cluster.psql(_FILL.format(number=number, rows=rows), database="shop0")
    for number in range(1, _DATABASES):
        cluster.psql(f"CREATE DATABASE shop{number} TEMPLATE shop0 STRATEGY file_copy")
    return rows
