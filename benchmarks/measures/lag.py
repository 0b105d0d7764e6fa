"""Measures the lag: from a file's arrival in the spool until it is verified on both stores and released."""

import time
from pathlib import Path

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.daemon import Arrivals, running_daemon, wait_gone, wait_idle
from benchmarks.figures import Figure, percentile

KEYS = ("lag_idle_p50_s", "lag_steady_p99_s")
_RATES = (2, 4, 8)


def measure(bench: Bench) -> list[Figure]:
    """Return the lag of an idle cluster, and of one or more segments a second during a run."""
    wal = bench.wal()
    with bench.buckets() as buckets, bench.scratch("lag") as folder:
        environment = ours.settings(bench.stores, buckets, folder, wal, more={"WAL_PIPELINE_LINGER_SECONDS": "3"})
        spool = folder / "spool"
        arrivals = Arrivals(wal, spool)
        with running_daemon(environment, folder):
            wait_gone([arrivals.put()])
            idle = [idle_lag(arrivals, spool) for _ in range(bench.size(9, 3))]
            bench.say("lag of an idle cluster: " + ", ".join(f"{lag:.2f}" for lag in idle))
            steady = _steady_lags(arrivals, 1, bench.size(60, 15))
            bench.say(f"lag at one a second: p50 {percentile(steady, 50):.2f}, p99 {percentile(steady, 99):.2f}")
            faster = {rate: _steady_lags(arrivals, rate, bench.size(20, 8)) for rate in _RATES}
    return [
        lag_figure("lag_idle_p50_s", "lag of an idle cluster, p50", idle, 50, "<= 3"),
        lag_figure("lag_steady_p50_s", "lag at a segment a second, p50", steady, 50, ""),
        lag_figure("lag_steady_p99_s", "lag at a segment a second, p99", steady, 99, "<= 1"),
        *(
            lag_figure(f"lag_{rate}_a_second_p99_s", f"lag at {rate} a second, p99", faster[rate], 99, "")
            for rate in _RATES
        ),
    ]


def lag_figure(key: str, title: str, lags: list[float], percent: float, goal: str) -> Figure:
    """Return a percentile of some lags as a figure."""
    spread = f"zstd 3, {len(lags)} files: p50 {percentile(lags, 50):.2f} s, p95 {percentile(lags, 95):.2f} s"
    return Figure(key, title, percentile(lags, percent), "s", goal, spread, {"s": lags})


def idle_lag(arrivals: Arrivals, spool: Path) -> float:
    """Return the lag in seconds of a file that arrives while there is no run."""
    wait_idle(spool)
    arrived = time.time()
    return wait_gone([arrivals.put()])[0] - arrived


def _steady_lags(arrivals: Arrivals, rate: int, seconds: int) -> list[float]:
    """Put files at a rate during a run. The first two, which wait for the run's start, do not count."""
    for _ in range(2):
        wait_gone([arrivals.put()])
    waiting: dict[Path, float] = {}
    lags: list[float] = []
    begun = time.monotonic()
    put = 0
    while put < rate * seconds or waiting:
        if put < rate * seconds and time.monotonic() >= begun + put / rate:
            arrived = time.time()
            waiting[arrivals.put()] = arrived
            put += 1
        gone = [path for path in waiting if not path.exists()]
        lags += [time.time() - waiting.pop(path) for path in gone]
        if time.monotonic() - begun > seconds + 300:
            raise ours.BenchError(f"{len(waiting)} files were not archived")
        time.sleep(0.01)
    return lags
