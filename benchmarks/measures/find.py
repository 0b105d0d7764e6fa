"""Measures how fast a search reads the WAL of pgbench: compressed segments in a folder, all cores of the host."""

import shutil
from statistics import median

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.figures import Figure, missing
from testbed.postgres_install import postgres_18
from wal_pipeline.stores.local.store import LocalFolderStore

KEYS = ("find_mb_s",)
TITLE = "find: WAL of pgbench searched for a transaction"
GOAL = ">= 100"
_NEVER = "1000000000"  # rows that no transaction deleted: each is looked at, and none is printed


def measure(bench: Bench) -> list[Figure]:
    """Return the rate of a search, in MB of WAL a second."""
    wal = bench.wal(16)
    segments = wal.segments[len(wal.segments) // 2 :]  # the second half is pgbench's
    segments = segments[: bench.size(len(segments), 8)]
    if not segments:
        return [missing(KEYS[0], TITLE, "no segment of pgbench was written", unit="MB/s", goal=GOAL)]
    with bench.scratch("find") as folder:
        environment = {
            "WAL_PIPELINE_STORES": "local",
            "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(folder / "store"),
            "WAL_PIPELINE_STATE_FOLDER": str(folder / "state"),
            "WAL_PIPELINE_CODEC": "zstd",
            "WAL_PIPELINE_SYSTEM_IDENTIFIER": str(wal.system_identifier),
            "WAL_PIPELINE_CONNINFO": f"host={folder} port=1",
            "PG_WAL_ARCHIVE_DIR": str(folder / "spool"),
            "PGBINDIR": str(postgres_18().bin_folder),
        }
        (folder / "store").mkdir()
        LocalFolderStore("local", folder / "store").prepare()
        (folder / "spool").mkdir()
        for path in segments:
            shutil.copy2(path, folder / "spool" / path.name)
        bench.say(f"find: storing {len(segments)} segments of pgbench, zstd")
        ours.archive(environment, len(segments))
        rates = [_rate(environment) for _ in range(bench.repeats)]
    note = f"{len(segments)} segments of PostgreSQL 18 in a folder, zstd; each transaction's deleted rows are counted"
    return [Figure(KEYS[0], TITLE, median(rates), "MB/s", GOAL, note, {"mb_s": rates})]


def _rate(environment: dict[str, str]) -> float:
    """Search once, and return the MB of WAL a second, the listing of the store included."""
    words = ("find", "--json", "--from", "2020-01-01 00:00:00Z", "--min-deletes", _NEVER)
    answer = ours.command(environment, *words).answer
    if answer["not_searched"] or not answer["commits"]:
        raise ours.BenchError(f"the search left WAL out: {answer['not_searched']}, {answer['commits']} commits")
    return float(answer["read_bytes"]) / 1e6 / float(answer["seconds"])
