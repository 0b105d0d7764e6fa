"""Measures the commands and the sensor that look at all files, with 100,000 files recorded and stored."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.figures import Figure, timed
from benchmarks.records_input import SEGMENT_BYTES, STORES, SYSTEM_IDENTIFIER, LongArchive
from testbed.s3_pair import S3Buckets
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.archive_push.pending import pending_work
from wal_pipeline.spool import Spool
from wal_pipeline.wal.names import segment_name

KEYS = ("plan_100000_s", "status_100000_s", "sensor_tick_100000_s")


def measure(bench: Bench) -> list[Figure]:
    """Return the seconds of the retention plan, of the status and of the sensor's look at the spool."""
    number = bench.size(100_000, 10_000)
    with bench.buckets() as buckets, bench.scratch("records") as folder:
        environment = ours.settings(
            bench.stores, buckets, folder, None, more={"WAL_PIPELINE_SYSTEM_IDENTIFIER": str(SYSTEM_IDENTIFIER)}
        )
        _fill(bench, buckets, folder, number)
        bench.say("records: the plan, the status, the sensor's look")
        plan, both = (
            [_plan(environment, number, stores) for _ in range(bench.repeats)] for stores in (("r2",), STORES)
        )
        status = [_status(environment, number) for _ in range(bench.repeats)]
        tick, full_tick = (_tick_seconds(folder, spooled, bench.repeats) for spooled in (1000, number))
    note = f"{number} files on each of two stores, the whole command with Python's start"
    one = f"{number} files in the catalog and on a store, the whole command with Python's start"
    return [
        Figure("plan_100000_s", "retention plan of one store", median(plan), "s", "<= 10", one, {"s": plan}),
        Figure("plan_two_stores_100000_s", "retention plan of both stores", median(both), "s", "", note, {"s": both}),
        Figure("status_100000_s", "status", median(status), "s", "<= 2", note, {"s": status}),
        Figure("sensor_tick_100000_s", "the sensor's look at the spool", median(tick), "s", "<= 1",
               f"1000 files in the spool, {number} in the catalog, one store at rest", {"s": tick}),
        Figure("sensor_tick_backlog_100000_s", "the same with a huge backlog", median(full_tick), "s", "",
               f"{number} files in the spool, {number} in the catalog, one store at rest", {"s": full_tick}),
    ]  # fmt: skip


def _fill(bench: Bench, buckets: S3Buckets, folder: Path, number: int) -> None:
    bench.say(f"records: putting {number} files into the catalog and onto both stores")
    archive = LongArchive(number, datetime.now(UTC), Layout("", "main", SYSTEM_IDENTIFIER))
    archive.record(
        open_catalog(f"sqlite:///{folder / 'state' / 'catalog.sqlite'}", "main", clock=lambda: datetime.now(UTC))
    )
    archive.put(bench.stores, buckets)


def _plan(environment: dict[str, str], number: int, stores: tuple[str, ...]) -> float:
    """Time the plan, and check it: the window's files stay, and older files are removed."""
    chosen = {**environment, "WAL_PIPELINE_STORES": ",".join(stores)}
    run = ours.command(chosen, "expire", "--json", check=False)
    for store in run.answer["stores"]:
        if not store["keep"] or len(store["keep"]) + len(store["expire"]) < number:
            raise ours.BenchError(f"the plan of {store['store']} does not judge every file")
    if len(run.answer["stores"]) != len(stores):
        raise ours.BenchError(f"stores are missing in the plan: {run.answer['silent']}")
    return run.seconds


def _status(environment: dict[str, str], number: int) -> float:
    run = ours.command(environment, "status", "--json", "--no-server", check=False)
    if run.answer["files"] != number or not run.answer["can_recover"]:
        raise ours.BenchError(f"the status does not see the archive: {run.answer['files']} files")
    return run.seconds


def _tick_seconds(folder: Path, number: int, repeats: int) -> list[float]:
    """Time the sensor's look with a store at rest, when it asks the catalog for every file."""
    now = datetime.now(UTC)
    spool = Spool(folder / "spool", folder / "quarantine", 60)
    for index in range(1, number + 1):
        path = spool.folder / segment_name(2, index, SEGMENT_BYTES).name
        path.touch()
        os.truncate(path, SEGMENT_BYTES)
    catalog = open_catalog(f"sqlite:///{folder / 'state' / 'catalog.sqlite'}", "main", clock=lambda: now)
    failed = StoreState("r2", 1, "down", last_failure_at=now, retry_at=now + timedelta(minutes=5))
    catalog.stores.save_state(failed)
    return [timed(lambda: pending_work(spool, catalog, STORES, now)) for _ in range(repeats)]
