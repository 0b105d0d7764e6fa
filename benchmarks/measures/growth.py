"""Measures throughput and memory as the work grows: with more, with smaller and with larger segments."""

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.figures import MIB, Figure
from benchmarks.ours import CommandRun

KEYS = ("peak_rss_mib_1000", "peak_rss_mib_10000")


def measure(bench: Bench) -> list[Figure]:
    """Return the peak memory at each size, and the throughput of many segments against that of 100."""
    few = _archive(bench, 16, 100)
    many = _archive(bench, 16, bench.size(1000, 200))
    small_few = _archive(bench, 1, 100)
    small_some = _archive(bench, 1, bench.size(1000, 400))
    small_many = _archive(bench, 1, bench.size(10_000, 1500))
    large = _archive(bench, 64, bench.size(100, 20))
    return [
        _memory("peak_rss_mib_100", "100 segments of 16 MiB", few),
        _memory("peak_rss_mib_1000", f"{_count(many)} segments of 16 MiB", many),
        _memory("peak_rss_mib_10000", f"{_count(small_many)} segments of 1 MiB", small_many),
        _memory("peak_rss_mib_64mb", f"{_count(large)} segments of 64 MiB", large),
        _holds("throughput_1000_vs_100", "16 MiB", many, few, 16),
        _holds("throughput_small_1000_vs_100", "1 MiB", small_some, small_few, 1),
        _holds("throughput_small_10000_vs_1000", "1 MiB", small_many, small_some, 1),
        _rate("archive_16mb_mb_s", "16 MiB", many, 16),
        _rate("archive_1mb_mb_s", "1 MiB", small_some, 1),
        _rate("archive_64mb_mb_s", "64 MiB", large, 64),
    ]


def _archive(bench: Bench, segment_mb: int, number: int) -> CommandRun:
    wal = bench.wal(segment_mb)
    with bench.buckets() as buckets, bench.scratch("growth") as folder:
        more = {"WAL_PIPELINE_MAX_RUN_SECONDS": "3600"}
        environment = ours.settings(bench.stores, buckets, folder, wal, more=more)
        wal.take(number, folder / "spool")
        run = ours.archive(environment, number)
        bench.say(f"{number} of {segment_mb} MiB: {run.drain_seconds:.1f} s, {run.peak_rss_mib:.0f} MiB at most")
        return run


def _count(run: CommandRun) -> int:
    return int(run.answer["released"])


def _memory(key: str, what: str, run: CommandRun) -> Figure:
    return Figure(key, f"peak memory, {what}", run.peak_rss_mib, "MiB", "<= 512")


def _per_second(run: CommandRun) -> float:
    return _count(run) / run.drain_seconds


def _holds(key: str, what: str, many: CommandRun, few: CommandRun, segment_mb: int) -> Figure:
    note = (
        f"{_per_second(many) * segment_mb * MIB / 1e6:.0f} MB/s against {_per_second(few) * segment_mb * MIB / 1e6:.0f}"
    )
    title = f"throughput of {_count(many)} against {_count(few)} segments of {what}"
    return Figure(key, title, _per_second(many) / _per_second(few), note=note)


def _rate(key: str, what: str, run: CommandRun, segment_mb: int) -> Figure:
    value = _per_second(run) * segment_mb * MIB / 1e6
    return Figure(
        key, f"throughput with segments of {what}, zstd 3", value, "MB/s", note=f"{_per_second(run):.1f} files/s"
    )
