"""Measures archive throughput to two stores, against pgBackRest, barman-cloud and the floor."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import barman, ours, pgbackrest
from benchmarks.bench import HOME, PROJECT, Bench
from benchmarks.figures import Figure, Samples, alternately, missing, ratio, speed, timed
from benchmarks.peer_cluster import control_file_15
from benchmarks.wal_input import mixed

CONCURRENCY: Final = 4
# codec, level, goal against pgBackRest, segments in a full and in a quick call
_CODECS: Final = (("gzip", 9, 4.0, 24, 4), ("zstd", 3, 1.5, 80, 16), ("lz4", 1, 1.2, 80, 16))
_BARMAN_SEGMENTS: Final = (8, 3)


def measure(bench: Bench) -> list[Figure]:
    """Return a ratio for each codec and peer.

    Ours is timed from the first look at the spool to the last release. A run starts once and then lingers, so Python's
    start is no part of the throughput; the figure ``command_start_s`` shows it.
    """
    figures: list[Figure] = []
    for codec, level, goal, full, quick in _CODECS:
        segments = bench.size(full, quick)
        bench.say(f"archive: {segments} segments with {codec} {level}")
        figures += _codec(bench, codec, level, goal, segments)
    return [*figures, *_barman(bench), _command_start(bench)]


def _codec(bench: Bench, codec: str, level: int, goal: float, segments: int) -> list[Figure]:
    size_bytes = segments * bench.wal().segment_bytes
    contenders: dict[str, Callable[[], float]] = {"ours": lambda: ours_seconds(bench, codec, level, segments)}
    if codec == "gzip":
        contenders["floor"] = lambda: floor_seconds(bench, codec, level, segments)
    else:
        unread = {"WAL_PIPELINE_READ_BACK": "false"}  # like the peers, which do not read back what they stored
        contenders["ours, no read-back"] = lambda: ours_seconds(bench, codec, level, segments, **unread)
    why_not = pgbackrest.unavailable()
    if why_not is None:
        contenders["pgbackrest"] = lambda: pgbackrest_seconds(bench, codec, level, segments)
    samples = alternately(contenders, bench.repeats, bench.say)
    speeds = ", ".join(f"{name} {speed(size_bytes, seconds)}" for name, seconds in samples.items())
    key, title = f"archive_{codec}{3 if codec == 'zstd' else 9}", f"archive, {codec} {level}"
    key = "archive_lz4" if codec == "lz4" else key
    bound = f">= {goal}"
    figures = [
        _against(f"{key}_vs_pgbackrest", f"{title}: pgBackRest", samples, "pgbackrest", goal=bound, speeds=speeds)
        if why_not is None
        else missing(f"{key}_vs_pgbackrest", f"{title}: pgBackRest", why_not, goal=bound)
    ]
    if codec != "gzip" and why_not is None:
        title = f"{title}: pgBackRest, ours without reading back"
        value = ratio(samples, "pgbackrest", "ours, no read-back")
        figures.append(Figure(f"{key}_no_read_back_vs_pgbackrest", title, value, note=speeds, samples=samples))
    if codec == "gzip":
        figures.append(
            _against(
                f"{key}_vs_floor", f"{title}: floor without upload", samples, "floor", goal=">= 0.85", speeds=speeds
            )
        )
    return figures


def _against(key: str, title: str, samples: Samples, theirs: str, *, goal: str, speeds: str) -> Figure:
    return Figure(key, title, ratio(samples, theirs, "ours"), goal=goal, note=speeds, samples=samples)


def ours_seconds(bench: Bench, codec: str, level: int, segments: int, **more: str) -> float:
    """Return the seconds of ``wal-pipeline archive`` for a spool of segments, with empty stores."""
    wal = bench.wal()
    with bench.buckets() as buckets, bench.scratch("ours") as folder:
        environment = ours.settings(bench.stores, buckets, folder, wal, codec=codec, level=level, more=more)
        wal.take(segments, folder / "spool")
        return ours.archive(environment, segments).drain_seconds


def pgbackrest_seconds(
    bench: Bench, codec: str, level: int, segments: int, *, ports: tuple[int, int] | None = None
) -> float:
    """Return the wall time of pgBackRest's asynchronous archive-push of the same segments."""
    chosen = mixed(bench.wal().segments, segments)
    with bench.buckets() as buckets, bench.scratch("pgbackrest") as folder:
        pgdata = pgbackrest.archiving_stanza(folder, chosen, control_file_15(HOME))
        more = ["archive-header-check=n"]  # Debian's release does not know the WAL of PostgreSQL 18
        pgbackrest.write_config(folder, pgdata, bench.stores, buckets, codec=codec, level=level, ports=ports, more=more)
        peer = pgbackrest.PgBackRest(folder, pgdata)
        peer.run("stanza-create", "--no-online")
        return timed(lambda: peer.push_all([path.name for path in chosen]))


def floor_seconds(bench: Bench, codec: str, level: int, segments: int) -> float:
    """Return the seconds of the floor for the same segments: read, hashed, compressed and not kept."""
    with bench.scratch("floor") as folder:
        bench.wal().take(segments, folder)
        command = [sys.executable, "-m", "benchmarks.floor", str(folder), codec, str(level), str(CONCURRENCY)]
        finished = subprocess.run(command, check=True, cwd=PROJECT, timeout=900, capture_output=True, text=True)
        return float(finished.stdout)


def _barman(bench: Bench) -> list[Figure]:
    key, title = "archive_zstd3_vs_barman", "archive, zstd 3: barman-cloud (one store, ours two)"
    peer = barman.install(HOME)
    if isinstance(peer, str):
        return [missing(key, title, peer)]
    wal, segments, theirs = bench.wal(), bench.size(80, 16), bench.size(*_BARMAN_SEGMENTS)

    def push() -> float:
        with bench.buckets() as buckets:
            chosen: list[Path] = mixed(wal.segments, theirs)
            return timed(lambda: peer.push_all(bench.stores.r2, buckets.r2, chosen, "zstd", 3)) / theirs

    contenders = {"ours": lambda: ours_seconds(bench, "zstd", 3, segments) / segments, "barman": push}
    bench.say("archive: seconds a segment, against barman-cloud with zstd 3")
    samples = alternately(contenders, bench.repeats, bench.say)
    note = ", ".join(f"{name} {speed(wal.segment_bytes, seconds)}" for name, seconds in samples.items())
    return [Figure(key, title, ratio(samples, "barman", "ours"), note=note, samples=samples)]


def _command_start(bench: Bench) -> Figure:
    """Measure the command with nothing to do."""

    def empty() -> float:
        with bench.buckets() as buckets, bench.scratch("start") as folder:
            return ours.archive(ours.settings(bench.stores, buckets, folder, bench.wal()), 0).seconds

    seconds = [empty() for _ in range(bench.repeats)]
    note = "the command with an empty spool: Python and its libraries"
    return Figure("command_start_s", "start of the command", median(seconds), "s", note=note, samples={"s": seconds})
