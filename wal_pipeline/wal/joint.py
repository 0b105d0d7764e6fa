"""Reads from a segment's pages what proves that one segment continues another: records, rests and timelines."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, Self

from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, LongPageHeader, PageFlag
from wal_pipeline.wal.pages import SHORT_HEADER_BYTES, first_record

USUAL_BLOCK: Final = 8192  # XLOG_BLCKSZ of nearly every server
_PAGE_HEADER: Final = Struct("<HHIQI")  # xlog_internal.h: XLogPageHeaderData
_LENGTH: Final = Struct("<I")  # xlogrecord.h: XLogRecord.xl_tot_len
_PREVIOUS: Final = Struct("<Q")  # XLogRecord.xl_prev
_PREVIOUS_AT: Final = 8
_INFO_AT: Final = 16  # XLogRecord.xl_info and, after it, xl_rmid
_RECORD_BYTES: Final = 24  # SizeOfXLogRecord
_LONGEST_RECORD: Final = 1 << 30  # XLogRecordMaxSize is a little less
_ALIGNMENT: Final = 8
_RM_XLOG: Final = 0  # rmgrlist.h
_XLOG_SWITCH: Final = 0x40  # pg_control.h
_XLOG_OVERWRITE_CONTRECORD: Final = 0xD0
_DATA_BLOCK: Final = b"\xff\x10"  # xlogrecord.h: XLR_BLOCK_ID_DATA_SHORT, and 16 bytes of data
_KIND_BITS: Final = 0xF0
_UNKNOWN: Final = "?"


@dataclass(frozen=True, slots=True)
class Joint:
    """One end of a segment: the last record that begins before it, and how many of its bytes come after it.

    ``record`` is None where the segment does not tell, as when one record fills all of it. It is 0/0 where the WAL was
    begun anew, which ``pg_resetwal`` does. ``rest_bytes`` is None where the server gave the record up after a crash. As
    text: ``0/2FFFF98+112``.
    """

    record: Lsn | None
    rest_bytes: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` made. Raises: ValueError."""
        record, _, rest = text.partition("+")
        if rest != _UNKNOWN and not (rest.isascii() and rest.isdigit()):
            raise ValueError(f"joint {text!a}")
        rest_bytes = None if rest == _UNKNOWN else int(rest)
        return cls(None if record == _UNKNOWN else Lsn.parse(record), rest_bytes)

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        parts = (_UNKNOWN if part is None else str(part) for part in (self.record, self.rest_bytes))
        return "+".join(parts)

    @property
    def is_new_beginning(self) -> bool:
        """Whether no record comes before: the server began its WAL anew here."""
        return self.record == 0

    def fits(self, following: "Joint") -> bool:
        """Say whether the segment that begins with ``following`` can continue the one that ends with this."""
        pairs = (self.record, following.record), (self.rest_bytes, following.rest_bytes)
        return all(None in pair or pair[0] == pair[1] for pair in pairs)

    def proves(self, following: "Joint") -> bool:
        """Say whether only the segment that ends with this can come before the one that begins with ``following``."""
        return self.fits(following) and (None not in (self.record, following.record) or bool(self.rest_bytes))


@dataclass(frozen=True, slots=True)
class SegmentJoints:
    """Names a segment's neighbours and its timeline, as its pages do.

    ``first_timeline`` is that of the first page: lower than the name's where the timeline began inside this segment.
    ``own_from`` is then the first page of the name's own timeline, None where no page is, or where pages do not have
    the usual size. ``begins`` and ``ends`` are None where the pages do not tell.
    """

    first_timeline: int
    own_from: Lsn | None = None
    begins: Joint | None = None
    ends: Joint | None = None


def read_joints(data: bytes, header: LongPageHeader, timeline: int) -> SegmentJoints:
    """Read the joints of a whole segment of ``timeline`` that begins with ``header``.

    Only its first and last pages are looked at, and some between to find where the written pages end.
    """
    pages = _Pages(data, header)
    own = pages.first_of(timeline) if header.timeline != timeline else 0
    return SegmentJoints(
        first_timeline=header.timeline,
        own_from=pages.address(own) if own and header.block_size == USUAL_BLOCK else None,
        begins=_begins(pages),
        ends=_ends(pages),
    )


@dataclass(frozen=True, slots=True)
class _Page:
    flags: int
    timeline: int
    rest_bytes: int

    @property
    def is_continued(self) -> bool:
        return bool(self.flags & PageFlag.FIRST_IS_CONTRECORD)

    @property
    def overwrites(self) -> bool:
        """Whether a record that was cut off before is given up here: no page header counts its rest."""
        return bool(self.flags & PageFlag.FIRST_IS_OVERWRITE_CONTRECORD)


class _Pages:
    """The pages of one segment, by number."""

    def __init__(self, data: bytes, header: LongPageHeader) -> None:
        self.data = data
        self.header = header
        self.count = min(len(data), header.wal_segment_size) // header.block_size
        self._written: int | None = None

    def address(self, number: int) -> Lsn:
        return Lsn(self.header.page_address + number * self.header.block_size)

    def room(self, number: int) -> int:
        """Return how many bytes of records a page has."""
        return self.header.block_size - _header_bytes(number)

    def page(self, number: int) -> _Page | None:
        """Return a page's header; None where it is not one of this segment's, as in the zeros after a switch."""
        magic, flags, timeline, address, rest = _PAGE_HEADER.unpack_from(self.data, number * self.header.block_size)
        if (magic, address) != (self.header.magic, self.address(number)) or timeline < self.header.timeline:
            return None
        return _Page(flags, timeline, rest)

    @property
    def last_written(self) -> int:
        """The last page that was written: they are written in order."""
        if self._written is None:
            low, high = 0, self.count - 1
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if self.page(middle) is not None else (low, middle - 1)
            self._written = low
        return self._written

    def first_of(self, timeline: int) -> int:
        """Return the first page of a timeline or a later one; 0 where no written page is."""
        low, high = 1, self.last_written + 1
        while low < high:
            middle = (low + high) // 2
            page = self.page(middle)
            low, high = (low, middle) if page is not None and page.timeline >= timeline else (middle + 1, high)
        return low if low <= self.last_written else 0

    def records(self, number: int, offset: int) -> Iterator[tuple[int, int]]:
        """Yield offset and length of each record that begins on a page, from the one at ``offset`` on.

        The offsets are within the segment. A length of 0 says that no record was written there.
        """
        end = (number + 1) * self.header.block_size
        while offset < end:
            (length,) = _LENGTH.unpack_from(self.data, offset)
            yield offset, length
            if length == 0 or _is_switch(self.data, offset, end):
                return
            offset = _aligned(offset + max(length, _RECORD_BYTES))


def _begins(pages: _Pages) -> Joint | None:
    header = pages.header
    if PageFlag.FIRST_IS_OVERWRITE_CONTRECORD in header.flags:
        return _given_up(pages, first_record(header) - header.page_address)
    rest = header.remaining_bytes if header.begins_inside_record else 0
    return Joint(_previous(pages, first_record(header) - header.page_address, rest), rest)


def _given_up(pages: _Pages, offset: int) -> Joint | None:
    """Read which record was given up from the one that says so (xlog_internal.h: xl_overwrite_contrecord)."""
    data, here = pages.data, offset + _RECORD_BYTES
    kind = data[offset + _INFO_AT] & _KIND_BITS, data[offset + _INFO_AT + 1], data[here : here + 2]
    if kind != (_XLOG_OVERWRITE_CONTRECORD, _RM_XLOG, _DATA_BLOCK):
        return None
    (record,) = _PREVIOUS.unpack_from(data, here + 2)
    return Joint(Lsn(record), None) if 0 < record < pages.header.page_address else None


def _previous(pages: _Pages, offset: int, rest_bytes: int) -> Lsn | None:
    """Return the LSN that the record at an offset gives for the record before it; None where it cannot be read."""
    block = pages.header.block_size
    if offset + _PREVIOUS_AT >= pages.count * block or not _continues(pages, offset // block, rest_bytes):
        return None
    (length,) = _LENGTH.unpack_from(pages.data, offset)
    place = offset + _PREVIOUS_AT
    if place % block == 0:
        place += SHORT_HEADER_BYTES
    (previous,) = _PREVIOUS.unpack_from(pages.data, place)
    here = pages.header.page_address + offset
    plausible = previous == 0 or here - 2 * _LONGEST_RECORD < previous < here
    return Lsn(previous) if plausible and _RECORD_BYTES <= length <= _LONGEST_RECORD else None


def _continues(pages: _Pages, last: int, rest_bytes: int) -> bool:
    """Say whether the rest of a record runs through the pages up to ``last``, as their headers must say."""
    left = rest_bytes - pages.room(0)
    for number in range(1, last + 1):
        page = pages.page(number)
        if page is None or page.overwrites or (page.rest_bytes if page.is_continued else 0) != max(left, 0):
            return False
        left -= pages.room(number)
    return True


def _ends(pages: _Pages) -> Joint | None:
    """Find the last record from the end: on the last page on which one begins."""
    block = pages.header.block_size
    for number in range(pages.last_written, -1, -1):
        page = pages.page(number)
        if page is None:
            return None
        rest = page.rest_bytes if page.is_continued and not page.overwrites else 0
        offset = _aligned(number * block + _header_bytes(number) + rest)
        if offset < (number + 1) * block:
            return _last_on(pages, number, offset)
    return Joint(None, _rest_after(pages, pages.header.remaining_bytes))


def _last_on(pages: _Pages, number: int, offset: int) -> Joint | None:
    """Return the joint after the last record that begins on a page, from the one at ``offset`` on.

    A segment whose last pages were not written, or whose last page ends in zeros, ends there only where the record
    says that the server switched to the next segment.
    """
    end = (number + 1) * pages.header.block_size
    last: tuple[int, int] | None = None
    for place, length in pages.records(number, offset):
        if length == 0:
            return None
        if not _RECORD_BYTES <= length <= _LONGEST_RECORD:
            return None
        last = (place, length)
    if last is None:
        return None
    record = Lsn(pages.header.page_address + last[0])
    if _is_switch(pages.data, last[0], end):
        return Joint(record, 0)
    if pages.last_written != pages.count - 1:
        return None
    over = max(0, last[1] - (end - last[0]))
    return Joint(record, over if number == pages.last_written else _rest_on_last(pages))


def _rest_on_last(pages: _Pages) -> int:
    page = pages.page(pages.last_written)
    return 0 if page is None else max(0, page.rest_bytes - pages.room(pages.last_written))


def _rest_after(pages: _Pages, rest_bytes: int) -> int:
    return max(0, rest_bytes - sum(pages.room(number) for number in range(pages.count)))


def _is_switch(data: bytes, offset: int, end: int) -> bool:
    if offset + _INFO_AT + 2 > end:  # its header goes on on the next page
        return False
    return data[offset + _INFO_AT] & _KIND_BITS == _XLOG_SWITCH and data[offset + _INFO_AT + 1] == _RM_XLOG


def _header_bytes(number: int) -> int:
    return LONG_HEADER_BYTES if number == 0 else SHORT_HEADER_BYTES


def _aligned(offset: int) -> int:
    return (offset + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
