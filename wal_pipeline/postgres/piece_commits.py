"""Reads the commits whose records end in a part of a segment, with PostgreSQL's own pg_waldump."""

import logging
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.errors import InvalidWalFileError, InvalidWalNameError, PostgresError
from wal_pipeline.postgres.waldump import PgWaldump, run_waldump
from wal_pipeline.postgres.waldump_output import Scan, parse_commit, parse_output
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, segment_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, LongPageHeader, PageFlag, parse_long_page_header
from wal_pipeline.wal.pages import SHORT_HEADER_BYTES, next_record, record_end

ReadWal = Callable[[WalFileName, int, int], bytes]
"""Returns the bytes of a segment between two offsets. Raises: PostgresError."""

_BEFORE_BYTES: Final = 256 * 1024  # before the part, where a commit record that ends in it may begin
_MOST_BEFORE_BYTES: Final = 16 * 2**20  # the same for a record that is longer; beyond it nothing is known
_TIMEOUT_SECONDS: Final = 20.0
_PAGE: Final = struct.Struct("<HHIQI")  # xlog_internal.h: XLogPageHeaderData, up to xlp_rem_len
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartCommits:
    """The commits whose records end in a part of a segment, the first and the last in WAL order."""

    times: CommitTimes
    first_at: datetime | None = None
    last_at: datetime | None = None


UNKNOWN: Final = PartCommits(CommitTimes.UNKNOWN)
_NONE: Final = PartCommits(CommitTimes.KNOWN)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a segment, and its segment's first page."""

    segment: WalFileName
    header: LongPageHeader
    from_offset: int
    to_offset: int
    major: int

    @property
    def start(self) -> Lsn:
        return Lsn(self.header.page_address + self.from_offset)

    @property
    def end(self) -> Lsn:
        return Lsn(self.header.page_address + self.to_offset)

    def record_end(self, start: Lsn, size_bytes: int) -> Lsn:
        return record_end(start, size_bytes, self.header.wal_segment_size, self.header.block_size)


@dataclass(frozen=True, slots=True)
class _Read:
    """Bytes of the WAL from a page's start on, perhaps of two segments."""

    page: Lsn
    data: bytes

    @property
    def rest(self) -> int:
        """How many bytes at its start are the rest of a record that begins before it."""
        _, info, _, _, remaining = _PAGE.unpack_from(self.data)
        return int(remaining) if info & PageFlag.FIRST_IS_CONTRECORD else 0

    def after(self, lsn: Lsn) -> bytes:
        return self.data[lsn - self.page :]


class PieceCommitReader:
    """Reads the commits of a part of a segment whose bytes are at hand up to the part's end, and not beyond."""

    def __init__(self, waldump: PgWaldump) -> None:
        """``waldump`` finds the program of the version that wrote the segment."""
        self._waldump = waldump

    def read(
        self, read_wal: ReadWal, segment: WalFileName, from_offset: int, to_offset: int, major: int
    ) -> PartCommits:
        """Return the commits between two offsets; ``UNKNOWN``, and a line in the log, where they cannot be read.

        ``read_wal`` is also asked for what lies before the part, in its segment and in the one before it: a record
        that ends in the part may begin there.
        """
        try:
            header = parse_long_page_header(segment.name, read_wal(segment, 0, LONG_HEADER_BYTES))
            return self._read(read_wal, _Part(segment, header, from_offset, to_offset, major))
        except (PostgresError, InvalidWalFileError, InvalidWalNameError, OSError) as error:
            _log.info(
                "the commits in '%s' from %d to %d are not known: %s", segment.name, from_offset, to_offset, error
            )
            return UNKNOWN

    def _read(self, read_wal: ReadWal, part: _Part) -> PartCommits:
        block = part.header.block_size
        start = part.from_offset // block * block
        for before_bytes in (_BEFORE_BYTES, _MOST_BEFORE_BYTES):
            first = max(0, start - before_bytes)
            read = _Read(Lsn(part.header.page_address + first), read_wal(part.segment, first, part.to_offset))
            begin = part.record_end(read.page, read.rest)
            if read.rest and begin > part.end:
                return _NONE  # the part lies within one record
            if not read.rest or begin <= part.start:
                files = {part.segment: [(0, read_wal(part.segment, 0, min(block, part.to_offset))), (first, read.data)]}
                return self._scan(part, files, read, next_record(begin))
        return self._with_segment_before(read_wal, part, read.data) if first == 0 else UNKNOWN

    def _with_segment_before(self, read_wal: ReadWal, part: _Part, data: bytes) -> PartCommits:
        """Read the part with the end of the segment before it, in which a record begins that ends in the part."""
        size, block = part.header.wal_segment_size, part.header.block_size
        before = segment_name(part.segment.timeline, part.segment.number(size) - 1, size)
        for before_bytes in (_BEFORE_BYTES, _MOST_BEFORE_BYTES):
            first = max(0, size - before_bytes)
            tail = read_wal(before, first, size)
            read = _Read(Lsn(part.header.page_address - size + first), tail + data)
            begin = part.record_end(read.page, read.rest)
            if begin <= part.header.page_address:
                files = {before: [(0, read_wal(before, 0, block)), (first, tail)], part.segment: [(0, data)]}
                return self._scan(part, files, read, next_record(begin))
        return UNKNOWN

    def _scan(
        self, part: _Part, files: dict[WalFileName, list[tuple[int, bytes]]], read: "_Read", begin: Lsn
    ) -> PartCommits:
        """Run pg_waldump over what was ``read``, in which the first record is at ``begin``."""
        block = part.header.block_size
        begin = part.record_end(begin, 0)  # where it is a page's start, a record begins behind the page's header
        if begin >= part.end or not _has_content(read.after(begin), int(begin), block):
            return _NONE
        size_bytes = int.from_bytes(read.after(begin)[:4], "little")  # XLogRecord.xl_tot_len
        if part.record_end(begin, size_bytes) > part.end:
            return _NONE  # the only record that begins in it ends later
        with tempfile.TemporaryDirectory(prefix="wal-pipeline-piece-") as folder:
            for name, parts in files.items():
                _write(Path(folder) / name.name, part.header.wal_segment_size, parts)
            scan = run_waldump(
                [
                    *(self._waldump.program(part.major), "-r", "Transaction", "-t", str(part.segment.timeline)),
                    *("-s", str(begin), "-e", str(part.end), "-p", Path(folder)),
                ],
                _TIMEOUT_SECONDS,
                parse=partial(_parse, part=part),
            )
        if scan.error is not None:
            raise PostgresError(f"pg_waldump: {scan.error}")
        return PartCommits(
            CommitTimes.KNOWN,
            first_at=None if scan.first is None else scan.first.commit.at,
            last_at=None if scan.last is None else scan.last.commit.at,
        )


def _has_content(data: bytes, position: int, block_size: int) -> bool:
    """Whether there is more than page headers and zeros, with which a switch to the next segment fills the rest."""
    room = block_size - position % block_size
    pages = range(room, len(data), block_size)
    return any(data[:room]) or any(any(data[at + SHORT_HEADER_BYTES : at + block_size]) for at in pages)


def _write(path: Path, size_bytes: int, parts: Iterable[tuple[int, bytes]]) -> None:
    """Write a segment of which only parts are at hand; the rest takes no room on the disk."""
    with path.open("xb") as file:
        file.truncate(size_bytes)
        for offset, data in parts:
            file.seek(offset)
            file.write(data)


def _parse(lines: Iterable[bytes], part: _Part) -> Scan:
    return parse_output(_inside(lines, part))


def _inside(lines: Iterable[bytes], part: _Part) -> Iterator[bytes]:
    """Leave out the commits whose records end before the part."""
    is_before = True
    for line in lines:
        found = parse_commit(line) if is_before else None
        if found is not None:
            is_before = part.record_end(found.commit.lsn, found.size_bytes) <= part.start
            if is_before:
                continue
        yield line
