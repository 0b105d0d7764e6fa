"""Measures the shipping of the open segment: seconds behind, CPU, and requests while nothing is written.

A commit is shipped when the pieces up to it are verified on both stores. Its age then counts from its acknowledgement.
"""

import os
import random
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.figures import Figure, percentile
from benchmarks.ours import BenchError
from benchmarks.shipped_cluster import STORES, ShippedCluster, shipped_cluster
from testbed.postgres import PostgresCluster

_INTERVALS: Final = (1, 5)
_RATES_MB: Final = (1, 8)
KEYS: Final = (
    *(f"ship_rpo_p{percent}_s_{interval}" for interval in _INTERVALS for percent in (50, 99)),
    *(f"ship_cpu_share_{rate}" for rate in _RATES_MB),
    "ship_requests_per_hour_idle",
)
_PGBENCH_RATE: Final = 200
_COMMIT_SECONDS: Final = 0.02
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_DEFAULT_INTERVAL: Final = 5
_WRITES_PER_SECOND: Final = 50
_QUIET_SECONDS: Final = 20.0
_COMMIT: Final = "INSERT INTO ledger VALUES (%s)"
_FLUSHED: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint"
_FILL: Final = "SELECT pg_logical_emit_message(true, 'bench', %s)"


def measure(bench: Bench) -> list[Figure]:
    """Return the seconds behind at two intervals, the shipper's CPU at two rates, and its requests while idle."""
    figures = [figure for interval in _INTERVALS for figure in _seconds_behind(bench, interval)]
    with shipped_cluster(bench, _DEFAULT_INTERVAL) as shipped:
        figures += [_cpu_share(bench, shipped, rate) for rate in _RATES_MB]
        figures.append(_idle_requests(bench, shipped))
    return figures


def _seconds_behind(bench: Bench, interval: int) -> list[Figure]:
    seconds = bench.size(20 * interval + 60, 5 * interval + 5)
    with shipped_cluster(bench, interval) as shipped:
        shipped.cluster.pgbench_init(scale=2)
        load = shipped.cluster.start_pgbench(seconds=seconds + 60, rate=_PGBENCH_RATE)
        try:
            commits = _commits(shipped.cluster, seconds)
        finally:
            load.kill()
        shipped.wait_shipped()
        ages = ages_when_shipped(commits, shipped.shipped().values())
    bench.say(f"interval {interval} s: p50 {percentile(ages, 50):.2f} s, p99 {percentile(ages, 99):.2f} s")
    note = f"{len(ages)} commits in {seconds} s beside pgbench with {_PGBENCH_RATE} a second; max {max(ages):.2f} s"
    title = f"from a commit to both stores, interval {interval} s"
    spread = {"s, by percentile": [percentile(ages, percent) for percent in range(101)]}
    return [
        Figure(f"ship_rpo_p50_s_{interval}", f"{title}, p50", percentile(ages, 50), "s", "", note, spread),
        Figure(f"ship_rpo_p99_s_{interval}", f"{title}, p99", percentile(ages, 99), "s", f"<= {interval + 1}", note),
    ]


def _commits(cluster: PostgresCluster, seconds: float) -> list[tuple[float, int]]:
    """Commit again and again; return when each was acknowledged, and how far WAL was flushed then at most."""
    found: list[tuple[float, int]] = []
    deadline = time.time() + seconds
    with cluster.connect() as connection:
        while time.time() < deadline:
            connection.execute(_COMMIT, (len(found),))
            at = time.time()
            row = connection.execute(_FLUSHED).fetchone()
            assert row is not None
            found.append((at, int(str(row[0]))))
            time.sleep(_COMMIT_SECONDS)
    return found


def ages_when_shipped(
    commits: Sequence[tuple[float, int]], stores: Iterable[Sequence[tuple[float, int]]]
) -> list[float]:
    """Return each commit's age in seconds when the last store had verified everything up to its position.

    ``commits`` are moments and positions, and so is what each store has verified, in order.

    Raises: BenchError where a store lacks one.
    """
    verified = [_reached(found) for found in stores]
    ages = []
    for at, lsn in commits:
        moments = []
        for moments_of, lsns in verified:
            place = bisect_left(lsns, lsn)
            if place == len(lsns):
                raise BenchError("a store lacks a commit")
            moments.append(moments_of[place])
        ages.append(max(moments) - at)
    return ages


def _reached(verified: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Return when a store got further, and how far: a piece that was verified again does not count."""
    moments: list[float] = []
    lsns: list[int] = []
    for at, lsn in verified:
        if not lsns or lsn > lsns[-1]:
            moments.append(at)
            lsns.append(lsn)
    return moments, lsns


def _cpu_share(bench: Bench, shipped: ShippedCluster, rate_mb: int) -> Figure:
    seconds = bench.size(60, 10)
    with _writing(shipped.cluster, rate_mb * 1e6):
        time.sleep(2 * _DEFAULT_INTERVAL)
        cpu, wall, lsn = _cpu_seconds(shipped.shipper.pid), time.monotonic(), shipped.flushed_lsn()
        time.sleep(seconds)
        cpu, wall = _cpu_seconds(shipped.shipper.pid) - cpu, time.monotonic() - wall
        written_mb = (shipped.flushed_lsn() - lsn) / 1e6 / wall
    shipped.wait_shipped()
    bench.say(f"{written_mb:.2f} MB/s of WAL: {cpu / wall:.1%} of a core")
    note = f"zstd 3, interval {_DEFAULT_INTERVAL} s, {written_mb:.2f} MB/s in {wall:.0f} s, with all programs it starts"
    title = f"the shipper's CPU by wall time, {rate_mb} MB/s of WAL"
    return Figure(f"ship_cpu_share_{rate_mb}", title, cpu / wall, "of a core", note=note)


@contextmanager
def _writing(cluster: PostgresCluster, bytes_per_second: float) -> Iterator[None]:
    """Write WAL at a rate from a thread, half of it hex digits that compress to half, half zeros in text."""
    ending = threading.Event()
    size = int(bytes_per_second / _WRITES_PER_SECOND)
    noise = random.Random(7).randbytes(size).hex()  # noqa: S311 - only to fill WAL

    def write() -> None:
        begun = time.monotonic()
        with cluster.connect() as connection:
            number = 0
            while not ending.wait(max(0.0, begun + number / _WRITES_PER_SECOND - time.monotonic())):
                number += 1
                start = number * 977 % (len(noise) - size // 2)
                connection.execute(_FILL, (noise[start : start + size // 2] + "0" * (size - size // 2),))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _cpu_seconds(pid: int) -> float:
    """Return the work of a process and of those that it started and waited for (proc(5), /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _idle_requests(bench: Bench, shipped: ShippedCluster) -> Figure:
    """Count the requests of a shipper whose server writes nothing."""
    seconds = bench.size(180, 20)
    shipped.cluster.psql("CHECKPOINT")
    _wait_quiet(shipped)
    before, lsn = _requests(shipped), shipped.flushed_lsn()
    time.sleep(seconds)
    requests, grown = _requests(shipped) - before, shipped.flushed_lsn() - lsn
    bench.say(f"idle for {seconds} s: {requests} requests, {grown} bytes of WAL")
    note = (
        f"{requests} requests by the program's own meter in {seconds} s, in which the server wrote {grown} bytes of WAL"
    )
    title = "requests to both stores in an hour without a write"
    return Figure(KEYS[-1], title, requests * 3600 / seconds, "", "<= 0", note)


def _wait_quiet(shipped: ShippedCluster) -> None:
    """Wait until the server writes no WAL and the shipper sends nothing."""
    state: tuple[int, int] | None = None
    since = begun = time.monotonic()
    while time.monotonic() - since < _QUIET_SECONDS:
        now = (shipped.flushed_lsn(), _requests(shipped))
        if now != state:
            state, since = now, time.monotonic()
        if time.monotonic() - begun > 300:
            raise BenchError("the server or the shipper does not come to rest")
        time.sleep(1)


def _requests(shipped: ShippedCluster) -> int:
    """Return the requests to both stores so far. Raises: BenchError where one of them is not counted."""
    last = next((line for line in reversed(shipped.lines()) if "requests" in line), None)
    if last is None or last["stores"] != len(STORES):
        raise BenchError(f"the shipper does not count the requests to both stores: {last}")
    return int(last["requests"])
