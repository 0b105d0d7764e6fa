"""What 100,000 recorded and stored files cost the commands that look at all of them, and 10,000 in the spool a tick."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.figures import Figure, timed
from wal_pipeline.archive.layout import Layout
from wal_pipeline.archive.records import Codec, CommitTimes, Copy, CopyStatus, Encoding, WalFile
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.catalog.stores import StoreState
from wal_pipeline.commands.pending import pending_work
from wal_pipeline.spool import Spool
from wal_pipeline.wal.names import require_file_name, segment_name

KEYS = ("plan_100000_s", "status_100000_s", "sensor_tick_10000_s")
_SYSTEM_IDENTIFIER: Final = 7_000_000_000_000_000_001
_SEGMENT_BYTES: Final = 2**20
_BATCH: Final = 5000


def measure(bench: Bench) -> list[Figure]:
    """Return the seconds of the retention plan, the status and the sensor's look at the spool."""
    files, spooled = bench.size(100_000, 10_000), bench.size(10_000, 10_000)
    with bench.scratch("records") as folder:
        environment = _environment(folder)
        bench.say(f"records: {files} files in the catalog and on a store (a local folder)")
        _fill(folder, files)
        plan = [ours.command(environment, "expire", "--json", check=False).seconds for _ in range(bench.repeats)]
        status = [
            ours.command(environment, "status", "--json", "--no-server", check=False).seconds
            for _ in range(bench.repeats)
        ]
        tick = _tick_seconds(folder, spooled, bench.repeats)
    note = f"{files} files, the whole command with Python's start"
    return [
        Figure("plan_100000_s", "retention plan", median(plan), "s", "<= 10", note, {"s": plan}),
        Figure("status_100000_s", "status", median(status), "s", "<= 2", note, {"s": status}),
        Figure("sensor_tick_10000_s", "the sensor's look at the spool", median(tick), "s", "<= 1",
               f"{spooled} files in the spool, one store at rest", {"s": tick}),
    ]  # fmt: skip


def _environment(folder: Path) -> dict[str, str]:
    (folder / "spool").mkdir()
    return {
        "WAL_PIPELINE_STORES": "local",
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(folder / "store"),
        "WAL_PIPELINE_STATE_FOLDER": str(folder / "state"),
        "WAL_PIPELINE_SYSTEM_IDENTIFIER": str(_SYSTEM_IDENTIFIER),
        "PG_WAL_ARCHIVE_DIR": str(folder / "spool"),
    }


def _fill(folder: Path, number: int) -> None:
    """Record so many segments, one a minute up to now, and put an object for each into the store's folder."""
    now = datetime.now(UTC)
    layout = Layout("", "main", _SYSTEM_IDENTIFIER)
    catalog = open_catalog(f"sqlite:///{folder / 'state' / 'catalog.sqlite'}", "main", clock=lambda: now)
    catalog.system_identifiers.add(_SYSTEM_IDENTIFIER, "benchmark", now)
    numbers = iter(range(1, number + 1))
    while batch := list(islice(numbers, _BATCH)):
        files = list(_files(batch, now - timedelta(minutes=number)))
        copies = [_copy(layout, file) for file in files]
        catalog.files.record_found(files, copies)
        for copy in copies:
            path = folder / "store" / copy.object_key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")


def _files(numbers: list[int], begun_at: datetime) -> Iterator[WalFile]:
    for number in numbers:
        name = segment_name(1, number, _SEGMENT_BYTES)
        at = begun_at + timedelta(minutes=number)
        yield WalFile(
            name.name, name.kind, _SYSTEM_IDENTIFIER, 1, _SEGMENT_BYTES, f"{number:064x}", at,
            wal_segment_size=_SEGMENT_BYTES, server_major=18, start_lsn=name.start_lsn(_SEGMENT_BYTES),
            end_lsn=name.end_lsn(_SEGMENT_BYTES), commit_times=CommitTimes.KNOWN, first_commit_at=at, last_commit_at=at,
        )  # fmt: skip


def _copy(layout: Layout, file: WalFile) -> Copy:
    key = layout.wal_key(require_file_name(file.name), Codec.ZSTD, encrypted=False)
    encoding = Encoding(Codec.ZSTD, False, 1, "c" * 64, "d" * 32)
    return Copy(
        name=file.name, system_identifier=file.system_identifier, store="local", status=CopyStatus.VERIFIED,
        object_key=key, encoding=encoding, tries=1, last_error=None, verified_at=file.spooled_at,
        store_seconds=0.1, lag_seconds=1.0,
    )  # fmt: skip


def _tick_seconds(folder: Path, number: int, repeats: int) -> list[float]:
    """Time the look that the sensor takes, with a store at rest: then it asks the catalog for every file."""
    now = datetime.now(UTC)
    spool = Spool(folder / "spool", folder / "quarantine", 60)
    for index in range(1, number + 1):
        path = spool.folder / segment_name(2, index, _SEGMENT_BYTES).name
        path.touch()
        os.truncate(path, _SEGMENT_BYTES)
    catalog = open_catalog(f"sqlite:///{folder / 'state' / 'catalog.sqlite'}", "main", clock=lambda: now)
    failed = StoreState("local", 1, "down", last_failure_at=now, retry_at=now + timedelta(minutes=5))
    catalog.stores.save_state(failed)
    return [timed(lambda: pending_work(spool, catalog, ("local",), now)) for _ in range(repeats)]
