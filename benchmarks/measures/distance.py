"""Measures archiving to distant stores, behind a round trip time and a bandwidth, ours and pgBackRest's."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks import pgbackrest
from benchmarks.bench import PROJECT, Bench
from benchmarks.figures import Figure, Samples, alternately, ratio, speed
from benchmarks.measures.archive import ours_seconds, pgbackrest_seconds
from testbed.ports import LOOPBACK, free_port
from testbed.processes import ChildProcess

KEYS = ("distance_40ms_vs_pgbackrest", "distance_150ms_vs_pgbackrest")
_ROUND_TRIPS_MS = (40, 150)
_BYTES_PER_SECOND = 20_000_000


def measure(bench: Bench) -> list[Figure]:
    """Return our throughput against pgBackRest's at each distance, and against ours without a distance."""
    segments = bench.size(32, 8)
    size_bytes = segments * bench.wal().segment_bytes
    figures: list[Figure] = []
    for milliseconds in _ROUND_TRIPS_MS:
        bench.say(f"distance: {milliseconds} ms and 20 MB/s to each store, {segments} segments, zstd 3")
        with far_stores(bench, milliseconds / 1000) as ports:
            samples = alternately(_contenders(bench, segments, ports), bench.repeats, bench.say)
        figures += _figures(milliseconds, size_bytes, samples)
    return figures


def _contenders(bench: Bench, segments: int, ports: tuple[int, int]) -> dict[str, Callable[[], float]]:
    endpoints = dict(zip(("R2_ENDPOINT_URL", "B2_ENDPOINT_URL"), map(_url, ports), strict=True))
    found: dict[str, Callable[[], float]] = {
        "near": lambda: ours_seconds(bench, "zstd", 3, segments),
        "ours": lambda: ours_seconds(bench, "zstd", 3, segments, **endpoints),
    }
    if pgbackrest.unavailable() is None:
        found["pgbackrest"] = lambda: pgbackrest_seconds(bench, "zstd", 3, segments, ports=ports)
    return found


def _figures(milliseconds: int, size_bytes: int, samples: Samples) -> list[Figure]:
    speeds = ", ".join(f"{name} {speed(size_bytes, seconds)}" for name, seconds in samples.items())
    key = f"distance_{milliseconds}ms"
    held = Figure(
        f"{key}_vs_near", f"archive at {milliseconds} ms, 20 MB/s: ours near", ratio(samples, "near", "ours"),
        note=speeds, samples=samples,
    )  # fmt: skip
    title = f"archive at {milliseconds} ms, 20 MB/s: pgBackRest"
    if "pgbackrest" not in samples:
        return [held, Figure(f"{key}_vs_pgbackrest", title, None, note=str(pgbackrest.unavailable()))]
    against = Figure(f"{key}_vs_pgbackrest", title, ratio(samples, "pgbackrest", "ours"), note=speeds, samples=samples)
    return [against, held]


@contextmanager
def far_stores(bench: Bench, round_trip_seconds: float) -> Iterator[tuple[int, int]]:
    """Start a proxy before each store, in a process of its own, and yield their ports."""
    with ExitStack() as stack:
        r2, b2 = (_start(bench, server.port, round_trip_seconds, stack) for server in bench.stores.servers)
        yield r2, b2


def _start(bench: Bench, target: int, round_trip_seconds: float, stack: ExitStack) -> int:
    port = free_port()
    words = [str(port), str(target), str(round_trip_seconds), str(_BYTES_PER_SECOND)]
    command = [sys.executable, "-m", "benchmarks.delay_proxy", *words]
    process = ChildProcess("delay proxy", command, log=bench.folder / "proxy.log", cwd=PROJECT)
    process.start()
    stack.callback(process.kill)
    process.wait_until(lambda: _listens(port))
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        listens = probe.connect_ex((LOOPBACK, port)) == 0
    time.sleep(0 if listens else 0.05)
    return listens


def _url(port: int) -> str:
    return f"https://{LOOPBACK}:{port}"
