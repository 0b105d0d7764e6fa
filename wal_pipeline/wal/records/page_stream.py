"""Takes the page headers out of a segment, so that its records lie one after the other, and checks what they say."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, LongPageHeader, PageFlag, parse_long_page_header
from wal_pipeline.wal.pages import SHORT_HEADER_BYTES

PADDING_BYTES: Final = 64  # so that a record's fields can be gathered without a look at the end
# Versions 13 and 14 mark compressed page images otherwise, and no server of theirs is at hand to prove it with.
DECODED_MAJORS: Final = (15, 16, 17, 18)
_PAGE_HEADER: Final = np.dtype(
    {
        "names": ["magic", "info", "timeline", "address", "rest"],
        "formats": ["<u2", "<u2", "<u4", "<u8", "<u4"],
        "offsets": [0, 2, 4, 8, 16],
        "itemsize": SHORT_HEADER_BYTES,
    }
)

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


class UndecodableWalError(InvalidWalFileError):
    """A segment is of a PostgreSQL version whose records this program does not read."""


class DamagedRecordsError(InvalidWalFileError):
    """A segment's records contradict its pages, or one another: ``lsn`` is where."""

    def __init__(self, message: str, lsn: Lsn) -> None:
        super().__init__(message, hint="'wal-pipeline verify' compares the stored copies with their checksums.")
        self.lsn = lsn


@dataclass(frozen=True, slots=True, eq=False)
class PageStream:
    """A segment's bytes without its page headers.

    ``body`` are ``size_bytes`` bytes and then zeros; a record's offset in it is aligned as its LSN is. Of them,
    ``head_bytes`` belong to a record that began in an earlier segment. ``rests``: at each page's first byte, how many
    bytes of an earlier record must follow. ``given_up`` are the offsets of pages before which the server gave a record
    up, after a crash. ``is_cut`` says that the pages end before the segment does.
    """

    name: str
    header: LongPageHeader
    body: Bytes
    size_bytes: int
    head_bytes: int
    page_starts: Numbers
    rests: Numbers
    given_up: tuple[int, ...]
    is_cut: bool

    def lsns(self, offsets: Numbers) -> Numbers:
        """Return the LSNs of offsets in ``body``."""
        block = self.header.block_size
        behind = offsets - (block - LONG_HEADER_BYTES)
        room = block - SHORT_HEADER_BYTES
        on_later = (behind // room + 1) * block + SHORT_HEADER_BYTES + behind % room
        return np.where(behind < 0, offsets + LONG_HEADER_BYTES, on_later) + int(self.header.page_address)

    def lsn(self, offset: int) -> Lsn:
        """Return the LSN of one offset."""
        return Lsn(int(self.lsns(np.array([offset], np.int64))[0]))


def open_pages(name: WalFileName, data: bytes, end_offset: int | None = None) -> PageStream:
    """Take the page headers out of a segment; what lies from ``end_offset`` on is not looked at.

    Raises: UndecodableWalError, InvalidSegmentError, DamagedRecordsError.
    """
    header = parse_long_page_header(name.name, data[:LONG_HEADER_BYTES])
    _require_known(name, header)
    block = header.block_size
    end = len(data) if end_offset is None else min(end_offset, len(data))
    count = -(-end // block)
    pages = np.frombuffer(data, np.uint8, count * block).reshape(count, block)
    heads = np.frombuffer(pages[:, :SHORT_HEADER_BYTES].tobytes(), _PAGE_HEADER)
    written = _written(heads, header)
    flags = heads["info"][:written]
    size = written * (block - SHORT_HEADER_BYTES) - (LONG_HEADER_BYTES - SHORT_HEADER_BYTES)
    body = np.zeros(size + PADDING_BYTES, np.uint8)
    first = block - LONG_HEADER_BYTES
    body[:first] = pages[0, LONG_HEADER_BYTES:]
    body[first:size].reshape(written - 1, block - SHORT_HEADER_BYTES)[:] = pages[1:written, SHORT_HEADER_BYTES:]
    starts = np.arange(written, dtype=np.int64) * (block - SHORT_HEADER_BYTES)
    starts[1:] -= LONG_HEADER_BYTES - SHORT_HEADER_BYTES
    continued = flags & int(PageFlag.FIRST_IS_CONTRECORD) != 0
    rests = np.where(continued, heads["rest"][:written], 0).astype(np.int64)
    given_up = starts[(flags & int(PageFlag.FIRST_IS_OVERWRITE_CONTRECORD)) != 0]
    if written == count and end % block:
        size -= count * block - end  # the last page is not all there
    return PageStream(
        name=name.name,
        header=header,
        body=body,
        size_bytes=max(0, size),
        head_bytes=int(rests[0]),
        page_starts=starts,
        rests=rests,
        given_up=tuple(int(one) for one in given_up),
        is_cut=written < len(data) // block or end < len(data),
    )


def _require_known(name: WalFileName, header: LongPageHeader) -> None:
    """Refuse a version whose records were not compared with its own pg_waldump."""
    if header.server_major in DECODED_MAJORS:
        return
    major = f"PostgreSQL {header.server_major}" if header.server_major else f"a version with magic {header.magic:04X}"
    raise UndecodableWalError(
        f"'{name.name}' is of {major}, expected PostgreSQL {DECODED_MAJORS[0]} to {DECODED_MAJORS[-1]}",
        hint="This program reads the records of those versions alone. pg_waldump of that version prints them.",
    )


def _written(heads: "NDArray[np.void]", header: LongPageHeader) -> int:
    """Return how many pages were written: from the first one that is not this segment's on, none is."""
    addresses = np.uint64(header.page_address) + np.arange(len(heads), dtype=np.uint64) * np.uint64(header.block_size)
    sound = (heads["magic"] == header.magic) & (heads["address"] == addresses)
    sound &= heads["timeline"] >= header.timeline
    return len(heads) if sound.all() else int(np.argmin(sound))
