"""Runs the real daemon over a spool, and puts files into it as PostgreSQL does."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import PROJECT, Bench
from benchmarks.ours import BenchError
from benchmarks.wal_input import WalInput
from testbed.dagster_instance import DagsterInstance
from wal_pipeline.spool import Spool

_LOOK_SECONDS = 0.005
_DRAIN_SECONDS = 1800
_SENSOR_SECONDS = 7  # the daemon's loop takes five seconds, after which the sensor waits for files again


class Arrivals:
    """Puts segments into a spool one by one: writes a temporary file, then renames it, as an archiver does."""

    def __init__(self, wal: WalInput, spool: Path) -> None:
        self._wal = wal
        self._spool = spool
        self._next = 0

    def put(self) -> Path:
        """Put the next segment into the spool, with the present moment as its time."""
        segments = self._wal.segments
        source = segments[self._next * 7 % len(segments)]
        timeline = 1 + self._next // len(segments)
        self._next += 1
        target = self._spool / f"{timeline:08X}{source.name[8:]}"
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, temporary)
        os.utime(temporary)
        return temporary.rename(target)


@contextmanager
def running_daemon(
    environment: Mapping[str, str], folder: Path, *, instance_file: Path = PROJECT / "dagster.yaml"
) -> Iterator[DagsterInstance]:
    """Start the code server and the daemon, with the sensor on, and stop them with the block."""
    dagster = DagsterInstance(folder / "dagster", environment, instance_file=instance_file)
    try:
        dagster.start_code_server()
        dagster.start_daemon()
        yield dagster
    finally:
        dagster.stop()


def wait_gone(paths: list[Path], timeout_seconds: float = 120) -> list[float]:
    """Wait until these files have left the spool; return the time of each, on the clock of ``time.time``."""
    gone: dict[Path, float] = {}
    deadline = time.monotonic() + timeout_seconds
    while len(gone) < len(paths):
        for path in paths:
            if path not in gone and not path.exists():
                gone[path] = time.time()
        if time.monotonic() > deadline:
            raise BenchError(f"{len(paths) - len(gone)} of {len(paths)} files were not archived in {timeout_seconds} s")
        time.sleep(_LOOK_SECONDS)
    return [gone[path] for path in paths]


def wait_idle(spool: Path) -> None:
    """Wait until no run holds the spool and the sensor waits for files."""
    watched = Spool(spool, spool.with_name("quarantine"), 60)
    deadline = time.monotonic() + 120
    while watched.busy():
        if time.monotonic() > deadline:
            raise BenchError("the archiving run did not end")
        time.sleep(0.1)
    time.sleep(_SENSOR_SECONDS)


def drain_seconds(bench: Bench, wal: WalInput, number: int, environment: Mapping[str, str], folder: Path) -> float:
    """Return the seconds from the arrival of ``number`` files to an empty spool, through sensor and run."""
    spool = Path(environment["PG_WAL_ARCHIVE_DIR"])
    with running_daemon(environment, folder):
        wait_gone([Arrivals(wal, spool).put()])
        wait_idle(spool)
        begun = time.monotonic()
        wal.take(number, spool, first_timeline=2)
        while any(entry.name[:1] != "." for entry in os.scandir(spool)):
            if time.monotonic() - begun > _DRAIN_SECONDS:
                raise BenchError("the spool did not drain")
            time.sleep(0.05)
        bench.say(f"through Dagster: {number} files in {time.monotonic() - begun:.1f} s")
        return time.monotonic() - begun
