"""Measures a backlog through Dagster (sensor, run, materializations) against the bare command."""

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.daemon import drain_seconds
from benchmarks.figures import Figure, alternately, ratio

KEYS = ("dagster_vs_command",)


def measure(bench: Bench) -> list[Figure]:
    """Return the share of the command's throughput that Dagster reaches, both with their start."""
    number, wal = bench.size(1000, 100), bench.wal()
    bench.say(f"dagster: a backlog of {number} segments")

    def command() -> float:
        with bench.buckets() as buckets, bench.scratch("command") as folder:
            environment = ours.settings(bench.stores, buckets, folder, wal)
            wal.take(number, folder / "spool", first_timeline=2)
            return ours.archive(environment, number).seconds

    def dagster() -> float:
        with bench.buckets() as buckets, bench.scratch("dagster") as folder:
            more = {"WAL_PIPELINE_LINGER_SECONDS": "0"}
            environment = ours.settings(bench.stores, buckets, folder, wal, more=more)
            return drain_seconds(bench, wal, number, environment, folder)

    samples = alternately({"command": command, "dagster": dagster}, bench.repeats, bench.say)
    note = f"{number} segments of 16 MiB, zstd 3, {len(samples['command'])} rounds"
    title = "backlog through Dagster against the command"
    return [
        Figure("dagster_vs_command", title, ratio(samples, "command", "dagster"), "x", ">= 0.9", note, samples),
    ]
