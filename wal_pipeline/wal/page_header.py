"""Reads the header on a segment's first page, and checks that a file is the segment that its name says."""

import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Final

from wal_pipeline.errors import InvalidWalFileError, InvalidWalNameError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import MAX_WAL_SEGMENT_SIZE, MIN_WAL_SEGMENT_SIZE, FileKind, WalFileName

# xlog_internal.h: XLogLongPageHeaderData, as a little-endian server writes it. WAL is in the server's own byte
# order; every platform for which PostgreSQL packages are still made by default is little-endian, and a big-endian
# page is refused by name rather than misread.
_LONG_HEADER: Final = struct.Struct("<HHIQIxxxxQII")
LONG_HEADER_BYTES: Final = _LONG_HEADER.size

# xlog_internal.h: XLOG_PAGE_MAGIC of each release.
MAJOR_OF_MAGIC: Final = {0xD106: 13, 0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
NEWEST_KNOWN_MAJOR: Final = max(MAJOR_OF_MAGIC.values())


class PageFlag(IntFlag):
    """``xlp_info`` of a WAL page header."""

    FIRST_IS_CONTRECORD = 0x0001
    LONG_HEADER = 0x0002
    BKP_REMOVABLE = 0x0004
    FIRST_IS_OVERWRITE_CONTRECORD = 0x0008


class SegmentFault(StrEnum):
    """Why a file is not the segment that its name says."""

    TOO_SHORT = "too_short"  # fewer bytes than a segment: half a copy, or one that still grows
    TOO_LONG = "too_long"
    NOT_A_WAL_PAGE = "not_a_wal_page"
    WRONG_ADDRESS = "wrong_address"  # the page belongs at another LSN than the name says
    WRONG_TIMELINE = "wrong_timeline"
    WRONG_CLUSTER = "wrong_cluster"


class InvalidSegmentError(InvalidWalFileError):
    """A file is not the segment that its name says; ``fault`` is the reason."""

    def __init__(self, fault: SegmentFault, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class LongPageHeader:
    """A segment's first page header.

    ``server_major`` is None where this program does not know the release with the page's magic.
    ``remaining_bytes`` is the length of the rest, at the page's start, of a record from the segment before.
    ``wal_segment_size`` and ``block_size`` are in bytes.
    """

    magic: int
    flags: PageFlag
    timeline: int
    page_address: Lsn
    remaining_bytes: int
    system_identifier: int
    wal_segment_size: int
    block_size: int

    @property
    def server_major(self) -> int | None:
        """The major version of the server that wrote the page, such as 18."""
        return MAJOR_OF_MAGIC.get(self.magic)

    @property
    def begins_inside_record(self) -> bool:
        """Whether the segment begins with the rest of a record from the segment before."""
        return PageFlag.FIRST_IS_CONTRECORD in self.flags


def parse_long_page_header(name: str, header_bytes: bytes) -> LongPageHeader:
    """Read the first ``LONG_HEADER_BYTES`` (40) bytes of a segment; ``name`` names the file in the error.

    Raises: InvalidSegmentError (TOO_SHORT, NOT_A_WAL_PAGE).
    """
    if len(header_bytes) < LONG_HEADER_BYTES:
        raise InvalidSegmentError(
            SegmentFault.TOO_SHORT,
            f"'{name}' has {len(header_bytes)} bytes, expected at least the {LONG_HEADER_BYTES} of a page header",
        )
    magic, info, timeline, address, remaining, system_identifier, segment_size, block_size = _LONG_HEADER.unpack_from(
        header_bytes
    )
    fault = _page_fault(magic, info, timeline, segment_size, block_size)
    if fault is not None:
        raise InvalidSegmentError(SegmentFault.NOT_A_WAL_PAGE, f"'{name}' does not begin with a WAL page: {fault}")
    return LongPageHeader(
        magic=magic,
        flags=PageFlag(info),
        timeline=timeline,
        page_address=Lsn(address),
        remaining_bytes=remaining,
        system_identifier=system_identifier,
        wal_segment_size=segment_size,
        block_size=block_size,
    )


def segment_size_of(name: WalFileName, header_bytes: bytes) -> int:
    """Return the size in bytes of the segment that begins with ``header_bytes``.

    Raises: InvalidSegmentError where no segment with that name begins so.
    """
    header = parse_long_page_header(name.name, header_bytes)
    _check_position(name, header)
    return header.wal_segment_size


def check_segment(
    name: WalFileName, header_bytes: bytes, size_bytes: int, system_identifiers: Collection[int] | None
) -> LongPageHeader:
    """Check that a file can be the segment, or the partial segment, that its name says, and return its header.

    ``header_bytes`` are the file's first bytes (40 or more), ``size_bytes`` is the whole file's size,
    ``system_identifiers`` are those of the expected clusters (None: any).

    The page's timeline may be lower than the name's: a promotion copies the last segment of the old timeline, up to
    the switch, into the first segment of the new one (xlog.c: XLogInitNewTimeline), and with it the first page.

    Raises: InvalidSegmentError; InvalidWalNameError where the name is not a segment's.
    """
    if name.kind not in (FileKind.SEGMENT, FileKind.PARTIAL):
        raise InvalidWalNameError(f"'{name.name}' is not a segment's name")
    header = parse_long_page_header(name.name, header_bytes)
    _check_cluster(name, header, system_identifiers)
    _check_position(name, header)
    _check_size(name, header, size_bytes)
    return header


def _page_fault(magic: int, info: int, timeline: int, segment_size: int, block_size: int) -> str | None:
    """Return why these values are not a long page header's; None where they are."""
    if magic >> 8 != 0xD1:  # D1xx since PostgreSQL 12; a magic that is not known yet is archived all the same
        return _magic_fault(magic)
    if not info & PageFlag.LONG_HEADER or info & ~sum(PageFlag):
        return f"its flags are {info:04X}, expected those of a long header"
    if timeline == 0:
        return "its timeline is 0"
    if not _power_of_two(segment_size, MIN_WAL_SEGMENT_SIZE, MAX_WAL_SEGMENT_SIZE):
        return f"its segment size is {segment_size}, expected a power of two from 1 MiB to 1 GiB"
    if not _power_of_two(block_size, 1 << 10, 1 << 16):
        return f"its block size is {block_size}, expected a power of two from 1 KiB to 64 KiB"
    return None


def _magic_fault(magic: int) -> str:
    if magic & 0xFF == 0xD1:
        return f"its magic {magic:04X} is of a big-endian server, which is not supported"
    known = ", ".join(f"{known:04X} ({major})" for known, major in MAJOR_OF_MAGIC.items())
    return f"its magic is {magic:04X}, expected {known}"


def _power_of_two(value: int, least: int, most: int) -> bool:
    return least <= value <= most and value & (value - 1) == 0


def _check_cluster(name: WalFileName, header: LongPageHeader, system_identifiers: Collection[int] | None) -> None:
    if system_identifiers is None or header.system_identifier in system_identifiers:
        return
    expected = " or ".join(str(identifier) for identifier in sorted(system_identifiers)) or "none"
    raise InvalidSegmentError(
        SegmentFault.WRONG_CLUSTER,
        f"'{name.name}' is of the cluster with system identifier {header.system_identifier}, expected {expected}",
        hint="Another cluster archives into this spool: give each cluster a spool of its own.",
    )


def _check_position(name: WalFileName, header: LongPageHeader) -> None:
    expected = _start_lsn(name, header.wal_segment_size)
    if header.page_address != expected:
        size = header.wal_segment_size
        unnamed = f"but no segment of {size} bytes has this name"
        wanted = unnamed if expected is None else f"expected {expected} with its segment size {size}"
        raise InvalidSegmentError(
            SegmentFault.WRONG_ADDRESS,
            f"'{name.name}' has the page address {header.page_address}, {wanted}",
            hint="The file was renamed, or is a recycled segment that was not written again.",
        )
    if header.timeline > name.timeline:
        raise InvalidSegmentError(
            SegmentFault.WRONG_TIMELINE,
            f"'{name.name}' has a first page of timeline {header.timeline}, expected {name.timeline} or lower",
            hint="The file was renamed.",
        )


def _start_lsn(name: WalFileName, wal_segment_size: int) -> Lsn | None:
    """Return where a segment of that name and size begins; None where no segment of the size has the name."""
    try:
        return name.start_lsn(wal_segment_size)
    except InvalidWalNameError:
        return None


def _check_size(name: WalFileName, header: LongPageHeader, size_bytes: int) -> None:
    if size_bytes == header.wal_segment_size:
        return
    fault = SegmentFault.TOO_SHORT if size_bytes < header.wal_segment_size else SegmentFault.TOO_LONG
    raise InvalidSegmentError(
        fault, f"'{name.name}' has {size_bytes} bytes, expected the segment size {header.wal_segment_size}"
    )
