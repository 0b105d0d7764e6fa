"""Writes WAL once with a real PostgreSQL 18: half of the segments by a bulk load, half by pgbench."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from testbed.postgres import PostgresCluster
from testbed.postgres_install import postgres_18
from wal_pipeline.wal.names import FileKind, parse_file_name

_HALF_BYTES = 640 * 2**20  # of each kind
_BULK_MB = 400
_PGBENCH_SCALE = 10
_PGBENCH_TRANSACTIONS = 4000


@dataclass(frozen=True, slots=True)
class WalInput:
    """Segments of one cluster, in the order in which a mixed load would write them."""

    folder: Path
    segments: tuple[Path, ...]
    segment_bytes: int
    system_identifier: int

    def take(self, number: int, into: Path, *, first_timeline: int = 1) -> int:
        """Put ``number`` segments into a folder as hard links, evenly of both kinds; return their bytes.

        The position in the name stays, because a segment's header holds it. For more segments than there are, the
        same ones are used on further timelines, where a segment of an older timeline is valid.
        """
        for round_number in range(-(-number // len(self.segments))):
            left = min(number - round_number * len(self.segments), len(self.segments))
            for segment in mixed(self.segments, left):
                timeline = first_timeline + round_number
                (into / f"{timeline:08X}{segment.name[8:]}").hardlink_to(segment)
        return number * self.segment_bytes


def mixed(segments: tuple[Path, ...], number: int) -> list[Path]:
    """Choose evenly from the whole list, whose first half is the bulk load and whose second half is pgbench."""
    return [segments[index * len(segments) // number] for index in range(number)]


def wal_input(folder: Path, segment_mb: int, say: Callable[[str], None]) -> WalInput:
    """Return the segments of one size, which are written where they are missing."""
    home = folder / f"{segment_mb}mb"
    facts = home / "facts.json"
    if not facts.exists():
        say(f"writing WAL with segments of {segment_mb} MB: a bulk load and pgbench on PostgreSQL 18")
        _write(home, segment_mb)
    known = json.loads(facts.read_text())
    segments = tuple(home / name for name in known["segments"])
    return WalInput(home, segments, segment_mb * 2**20, known["system_identifier"])


def _write(home: Path, segment_mb: int) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    settings = {"wal_keep_size": "100GB", "max_wal_size": "64GB", "archive_mode": "off", "synchronous_commit": "off"}
    cluster = PostgresCluster(postgres_18(), settings=settings).initdb(wal_segment_size_mb=segment_mb)
    try:
        cluster.start()
        cluster.pgbench_init(scale=_PGBENCH_SCALE)
        first = cluster.switch_wal()
        _write_until(cluster, _HALF_BYTES, lambda: cluster.bulk_load(_BULK_MB // 4))
        middle = cluster.switch_wal()
        _write_until(cluster, _HALF_BYTES, lambda: cluster.pgbench(transactions=_PGBENCH_TRANSACTIONS, clients=2))
        last = cluster.switch_wal()
        cluster.stop()
        names = sorted(path.name for path in (cluster.pgdata / "pg_wal").iterdir() if _is_segment(path.name))
        bulk = [name for name in names if first < name <= middle][: _HALF_BYTES // (segment_mb * 2**20)]
        oltp = [name for name in names if middle < name <= last][: len(bulk)]
        chosen = list(chain(bulk, oltp))
        for name in chosen:
            shutil.copyfile(cluster.pgdata / "pg_wal" / name, home / name)
        facts = {"segments": chosen, "system_identifier": int(cluster.system_identifier)}
        shutil.copyfile(cluster.pgdata / "global" / "pg_control", home / "pg_control")
        (home / "facts.json").write_text(json.dumps(facts))
    finally:
        cluster.remove()


def _write_until(cluster: PostgresCluster, size_bytes: int, load: Callable[[], None]) -> None:
    """Run a load until it has written ``size_bytes`` of WAL. Checkpoints in between cause full page images."""
    start = cluster.value("SELECT pg_current_wal_lsn()")
    while int(cluster.value(f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{start}')::bigint")) < size_bytes * 1.05:
        cluster.psql("CHECKPOINT")
        load()


def _is_segment(name: str) -> bool:
    parsed = parse_file_name(name)
    return parsed is not None and parsed.kind is FileKind.SEGMENT
