"""Measures the CPU for a segment: that of the archiver, and that of the two S3 servers on the same machine.

Where the processors are always busy, CPU decides throughput, and the least CPU that any archiver needs is the bound.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import pgbackrest
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.measures.archive import floor_seconds, ours_seconds, pgbackrest_seconds

# codec, level, key, segments in a full and in a quick call
_CODECS: Final = (("gzip", 9, "gzip9", 24, 4), ("zstd", 3, "zstd3", 80, 16), ("lz4", 1, "lz4", 80, 16))
KEYS = tuple(f"cpu_{name}_ms" for _, _, name, _, _ in _CODECS)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_UNREAD: Final = {"WAL_PIPELINE_READ_BACK": "false"}


def measure(bench: Bench) -> list[Figure]:
    """Return milliseconds for a segment of 16 MiB. All work of the machine counts, so nothing else may run on it."""
    bench.wal()  # writes missing WAL now, before something is measured
    return [
        figure
        for codec, level, name, full, quick in _CODECS
        for figure in _codec(bench, codec, level, name, bench.size(full, quick))
    ]


def _codec(bench: Bench, codec: str, level: int, name: str, segments: int) -> list[Figure]:
    ours, served = _milliseconds(bench, segments, lambda: ours_seconds(bench, codec, level, segments))
    _, served_puts = _milliseconds(bench, segments, lambda: ours_seconds(bench, codec, level, segments, **_UNREAD))
    floor, _ = _milliseconds(bench, segments, lambda: floor_seconds(bench, codec, level, segments))
    title = f"{codec} {level}"
    note = f"and the servers {served:.0f} ms; floor {floor:.0f} ms, the servers without the read-back {served_puts:.0f}"
    figures = [Figure(f"cpu_{name}_ms", f"CPU of archiving a segment, {title}", ours, "ms", note=note)]
    if pgbackrest.unavailable() is not None:
        return figures
    theirs = sum(_milliseconds(bench, segments, lambda: pgbackrest_seconds(bench, codec, level, segments)))
    bounds = {"pgbackrest": theirs / (floor + served_puts), "floor": floor / (floor + served_puts)}
    note = f"pgBackRest and the servers {theirs:.0f} ms; all that is left are the floor and the servers' puts"
    return [
        *figures,
        Figure(
            f"bound_{name}_vs_pgbackrest",
            f"the most that any archiver could reach here, {title}: pgBackRest",
            bounds["pgbackrest"],
            note=note,
        ),
        Figure(f"bound_{name}_vs_floor", f"the same, {title}: floor without upload", bounds["floor"]),
    ]


def _milliseconds(bench: Bench, segments: int, archive: Callable[[], object]) -> tuple[float, float]:
    """Return the archiver's and the servers' CPU for each segment."""
    servers = [server.pid for server in bench.stores.servers]
    busy, served = _busy_ticks(), sum(map(_ticks_of, servers))
    archive()
    served = sum(map(_ticks_of, servers)) - served
    scale = 1000 / _TICKS / segments
    return (_busy_ticks() - busy - served) * scale, served * scale


def _busy_ticks() -> int:
    """Return the work of all processors in ticks (proc(5), /proc/stat: user, nice, system)."""
    return sum(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4]))


def _ticks_of(pid: int) -> int:
    """Return the work of a process in ticks (proc(5), /proc/PID/stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
