"""Computes where a WAL record ends and where the next begins, with the page headers between their bytes."""

from typing import Final

from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, LongPageHeader

SHORT_HEADER_BYTES: Final = 24  # xlog_internal.h: SizeOfXLogShortPHD
_ALIGNMENT: Final = 8  # MAXALIGN on every 64-bit platform


def record_end(start: Lsn, size_bytes: int, wal_segment_size: int, block_size: int) -> Lsn:
    """Return the LSN just after a record's last byte: ``size_bytes`` from ``start``, page headers not counted.

    ``start`` is a record's first byte, or the first byte of a page on which the rest of a record begins.
    """
    position, left = int(start), size_bytes
    while True:
        offset = position % block_size
        if offset == 0:
            offset = LONG_HEADER_BYTES if position % wal_segment_size == 0 else SHORT_HEADER_BYTES
            position += offset
        room = block_size - offset
        if left <= room:
            return Lsn(position + left)
        position += room
        left -= room


def first_record(header: LongPageHeader) -> Lsn:
    """Return the first LSN at which a record can begin in a segment: after the rest of the record before it.

    This is past the segment's end where one record fills the whole segment.
    """
    rest = header.remaining_bytes if header.begins_inside_record else 0
    return next_record(record_end(header.page_address, rest, header.wal_segment_size, header.block_size))


def next_record(end: Lsn) -> Lsn:
    """Return the first LSN at which a record can begin after one that ended at ``end``."""
    return Lsn((end + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT)
