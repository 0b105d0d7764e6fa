"""Makes WAL segments that look real: a correct long page header, and the same content on every run."""

import random
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from wal_pipeline.postgres.commits import CommitReader, CommitSpan
from wal_pipeline.wal.names import segment_name

SEGMENT_BYTES = 1 << 20
SYSTEM_IDENTIFIER = 7_400_000_000_000_000_001
OTHER_SYSTEM_IDENTIFIER = 7_400_000_000_000_000_002
_HEADER = struct.Struct("<HHIQIxxxxQII")
_MAGIC_18 = 0xD118
_LONG_HEADER = 0x0002


def name_of(number: int, *, timeline: int = 1, size: int = SEGMENT_BYTES) -> str:
    """Return the name of a segment by its number."""
    return segment_name(timeline, number, size).name


def segment_bytes(
    number: int,
    *,
    timeline: int = 1,
    system_identifier: int = SYSTEM_IDENTIFIER,
    size: int = SEGMENT_BYTES,
    variant: int = 0,
) -> bytes:
    """Return a segment's bytes, which compress to a third. ``variant``: other content under the same header."""
    header = _HEADER.pack(_MAGIC_18, _LONG_HEADER, timeline, number * size, 0, system_identifier, size, 8192)
    return header + _filling(number % 7 + 100 * variant, size - len(header) - 8) + struct.pack("<Q", number)


def history_bytes(parents: Sequence[int]) -> bytes:
    """Return a timeline history file: each parent with the LSN at which the next timeline branched from it."""
    return b"".join(f"{timeline}\t0/{timeline}000000\tno recovery target specified\n".encode() for timeline in parents)


def backup_history_bytes(segment: str, system_lsn: str) -> bytes:
    """Return a backup history file as PostgreSQL writes it."""
    return (
        f"START WAL LOCATION: {system_lsn} (file {segment})\nSTOP WAL LOCATION: {system_lsn} (file {segment})\n"
        f"CHECKPOINT LOCATION: {system_lsn}\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n"
        "START TIME: 2026-11-22 12:00:00 UTC\nLABEL: test\nSTART TIMELINE: 1\n"
        "STOP TIME: 2026-11-22 12:00:01 UTC\nSTOP TIMELINE: 1\n"
    ).encode()


def spool_segments(spool: Path, numbers: Sequence[int], **options: int) -> dict[str, bytes]:
    """Put segments into a spool and return their content by name."""
    made = {}
    for number in numbers:
        name = name_of(number, timeline=options.get("timeline", 1), size=options.get("size", SEGMENT_BYTES))
        made[name] = segment_bytes(number, **options)
        (spool / name).write_bytes(made[name])
    return made


class NoCommits(CommitReader):
    """Reads no commits, because no server wrote these segments, and starts no program."""

    def inspect(self, *_segment: object, **_names: object) -> CommitSpan | None:
        return None


@lru_cache(maxsize=16)
def _filling(seed: int, size: int) -> bytes:
    noise = random.Random(seed).randbytes(4096)  # noqa: S311 - content of a test
    page = noise + noise[:64] * 128
    return (page * (size // len(page) + 1))[:size]
