"""Reads and makes the names of files in the WAL archive (xlog_internal.h: XLogFileName and its kin)."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wal_pipeline.errors import InvalidWalNameError
from wal_pipeline.wal.lsn import Lsn

MIN_WAL_SEGMENT_SIZE: Final = 1 << 20
MAX_WAL_SEGMENT_SIZE: Final = 1 << 30
_NAME: Final = re.compile(
    r"(?P<timeline>[0-9A-F]{8})"
    r"(?:\.history|(?P<log>[0-9A-F]{8})(?P<segment>[0-9A-F]{8})(?P<tail>\.partial|\.[0-9A-F]{8}\.backup)?)\Z"
)


class FileKind(StrEnum):
    """The kind of a file in the WAL archive."""

    SEGMENT = "segment"
    PARTIAL = "partial"
    HISTORY = "history"
    BACKUP_HISTORY = "backup_history"


_KINDS: Final = {None: FileKind.SEGMENT, ".partial": FileKind.PARTIAL}


@dataclass(frozen=True, slots=True)
class WalFileName:
    """One parsed name. ``log`` and ``segment`` are the second and third eight hex digits, 0 for a history file."""

    name: str
    kind: FileKind
    timeline: int
    log: int = 0
    segment: int = 0

    def number(self, wal_segment_size: int) -> int:
        """Return the segment's number: its start LSN divided by the segment size.

        Raises: InvalidWalNameError where no segment of that size can have this name.
        """
        check_wal_segment_size(wal_segment_size)
        per_log = (1 << 32) // wal_segment_size
        if self.kind is FileKind.HISTORY:
            raise InvalidWalNameError(f"'{self.name}' is a timeline history file and has no segment number")
        if self.segment >= per_log:
            raise InvalidWalNameError(
                f"'{self.name}' cannot be a segment of {wal_segment_size} bytes: "
                f"its last eight digits are at most {per_log - 1:08X}"
            )
        return self.log * per_log + self.segment

    def start_lsn(self, wal_segment_size: int) -> Lsn:
        """Return the segment's first LSN."""
        return Lsn(self.number(wal_segment_size) * wal_segment_size)

    def end_lsn(self, wal_segment_size: int) -> Lsn:
        """Return the first LSN after the segment (the last segment of all ends at 2**64 - 1)."""
        return Lsn(min((self.number(wal_segment_size) + 1) * wal_segment_size, 2**64 - 1))

    def next(self, wal_segment_size: int) -> "WalFileName":
        """Return the name of the segment that follows on the same timeline."""
        return segment_name(self.timeline, self.number(wal_segment_size) + 1, wal_segment_size)

    @property
    def order(self) -> tuple[int, int, int, int, str]:
        """The archiving order: timeline history files first, then by timeline and position, segments first."""
        rank = {FileKind.SEGMENT: 0, FileKind.PARTIAL: 1, FileKind.BACKUP_HISTORY: 2, FileKind.HISTORY: 0}
        first = 0 if self.kind is FileKind.HISTORY else self.timeline
        return (first, self.log, self.segment, rank[self.kind], self.name)


def check_wal_segment_size(wal_segment_size: int) -> None:
    """Refuse what initdb's ``--wal-segsize`` refuses: a power of two from 1 MiB to 1 GiB.

    Raises: InvalidWalNameError.
    """
    power_of_two = wal_segment_size & (wal_segment_size - 1) == 0
    if not (MIN_WAL_SEGMENT_SIZE <= wal_segment_size <= MAX_WAL_SEGMENT_SIZE and power_of_two):
        raise InvalidWalNameError(
            f"{wal_segment_size} is not a WAL segment size: expected a power of two from 1 MiB to 1 GiB"
        )


def parse_file_name(name: str) -> WalFileName | None:
    """Read a name of the WAL archive; None where PostgreSQL gives no such name."""
    match = _NAME.match(name)
    if match is None:
        return None
    digits, log, segment, tail = match.groups()
    timeline = int(digits, 16)
    if timeline == 0:
        return None
    if log is None:
        return WalFileName(name, FileKind.HISTORY, timeline)
    return WalFileName(name, _KINDS.get(tail, FileKind.BACKUP_HISTORY), timeline, int(log, 16), int(segment, 16))


def require_file_name(name: str) -> WalFileName:
    """Read a name of the WAL archive.

    Raises: InvalidWalNameError.
    """
    parsed = parse_file_name(name)
    if parsed is None:
        raise InvalidWalNameError(
            f"'{name}' is not the name of a file of the WAL archive",
            hint="Expected 24 hex digits in upper case, perhaps with .partial or .<offset>.backup, or <tli>.history.",
        )
    return parsed


def segment_name(timeline: int, number: int, wal_segment_size: int) -> WalFileName:
    """Return the name of a segment by its number (start LSN divided by the segment size)."""
    check_wal_segment_size(wal_segment_size)
    log, segment = divmod(number, (1 << 32) // wal_segment_size)
    if not 1 <= timeline <= 0xFFFFFFFF or not 0 <= log <= 0xFFFFFFFF:
        raise InvalidWalNameError(f"no segment has timeline {timeline} and number {number}")
    return WalFileName(f"{timeline:08X}{log:08X}{segment:08X}", FileKind.SEGMENT, timeline, log, segment)


def segment_at(timeline: int, lsn: Lsn, wal_segment_size: int) -> WalFileName:
    """Return the name of the segment that holds the byte at ``lsn``."""
    return segment_name(timeline, lsn // wal_segment_size, wal_segment_size)


def history_name(timeline: int) -> WalFileName:
    """Return the name of a timeline's history file. Timeline 1 has none in any archive."""
    return WalFileName(f"{timeline:08X}.history", FileKind.HISTORY, timeline)
