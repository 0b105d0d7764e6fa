"""Measures the lag of an idle cluster whose archiving runs go to a warm worker."""

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.daemon import Arrivals, running_daemon, wait_gone
from benchmarks.figures import Figure, missing
from benchmarks.measures.lag import idle_lag, lag_figure
from testbed.warm_workers import INSTANCE_FILE, missing_part, running_redis, running_worker

KEYS = ("lag_idle_warm_p50_s",)
_TITLE = "lag of an idle cluster with warm workers, p50"
_GOAL = "<= 1"


def measure(bench: Bench) -> list[Figure]:
    """Return the lag of an idle cluster. The first files, with which the worker warms up, do not count."""
    reason = missing_part()
    if reason is not None:
        return [missing(KEYS[0], _TITLE, reason, unit="s", goal=_GOAL)]
    wal = bench.wal()
    with bench.buckets() as buckets, bench.scratch("lag-warm") as folder, running_redis(folder / "redis") as redis:
        more = {"WAL_PIPELINE_LINGER_SECONDS": "3", **redis.environment}
        environment = ours.settings(bench.stores, buckets, folder, wal, more=more)
        spool = folder / "spool"
        arrivals = Arrivals(wal, spool)
        with (
            running_daemon(environment, folder, instance_file=INSTANCE_FILE) as dagster,
            running_worker(folder, dagster.environment) as worker,
        ):
            wait_gone([arrivals.put()])
            lags = [idle_lag(arrivals, spool) for _ in range(bench.size(10, 4))][1:]
            taken = worker.process.log.read_text().count("received")
            if taken <= len(lags):
                raise ours.BenchError(f"the worker took {taken} runs, expected more than {len(lags)}")
    bench.say("lag of an idle cluster with warm workers: " + ", ".join(f"{lag:.2f}" for lag in lags))
    return [lag_figure(KEYS[0], _TITLE, lags, 50, _GOAL)]
