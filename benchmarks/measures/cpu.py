"""What a segment costs in CPU: the archiver's own, and that of the two S3 servers, which share the machine here."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import pgbackrest
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.measures.archive import ours_seconds, pgbackrest_seconds

KEYS = ("cpu_gzip9_ms", "cpu_zstd3_ms", "cpu_lz4_ms")
# codec, level, key, segments in a full and in a quick call
_CODECS: Final = (
    ("gzip", 9, "cpu_gzip9_ms", 24, 4),
    ("zstd", 3, "cpu_zstd3_ms", 80, 16),
    ("lz4", 1, "cpu_lz4_ms", 80, 16),
)
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def measure(bench: Bench) -> list[Figure]:
    """Return milliseconds a segment of 16 MiB. All that the machine does counts: nothing else may run on it."""
    return [_codec(bench, codec, level, key, bench.size(full, quick)) for codec, level, key, full, quick in _CODECS]


def _codec(bench: Bench, codec: str, level: int, key: str, segments: int) -> Figure:
    ours, served = _milliseconds(bench, segments, lambda: ours_seconds(bench, codec, level, segments))
    note = f"the servers {served:.0f} ms"
    if pgbackrest.unavailable() is None:
        theirs = _milliseconds(bench, segments, lambda: pgbackrest_seconds(bench, codec, level, segments))
        note += f"; pgBackRest {theirs[0]:.0f} ms, the servers {theirs[1]:.0f} ms"
    return Figure(key, f"CPU of archiving a segment, {codec} {level}", ours, "ms", note=note)


def _milliseconds(bench: Bench, segments: int, archive: Callable[[], object]) -> tuple[float, float]:
    """Return the archiver's and the servers' CPU for each segment."""
    servers = [server.pid for server in bench.stores.servers]
    busy, served = _busy_ticks(), sum(map(_ticks_of, servers))
    archive()
    served = sum(map(_ticks_of, servers)) - served
    scale = 1000 / _TICKS / segments
    return (_busy_ticks() - busy - served) * scale, served * scale


def _busy_ticks() -> int:
    """Return what all processors have worked (proc(5), /proc/stat: user, nice, system)."""
    return sum(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4]))


def _ticks_of(pid: int) -> int:
    """Return what a process has worked (proc(5), /proc/PID/stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
