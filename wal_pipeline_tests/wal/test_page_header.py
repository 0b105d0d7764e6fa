"""The long page header is read, and files that their names do not describe are refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.errors import InvalidWalFileError, InvalidWalNameError
from wal_pipeline.wal.lsn import MAX_LSN, Lsn
from wal_pipeline.wal.names import require_file_name, segment_at
from wal_pipeline.wal.page_header import (
    LONG_HEADER_BYTES,
    MAJOR_OF_MAGIC,
    InvalidSegmentError,
    PageFlag,
    SegmentFault,
    check_segment,
    parse_long_page_header,
)

MIB = 1 << 20
SYSTEM = 7711054204191078742
NAME = "000000020000000000000005"


def page(
    *,
    magic: int = 0xD118,
    flags: int = 0x0006,
    timeline: int = 2,
    address: int = 5 * 16 * MIB,
    remaining: int = 0,
    system: int = SYSTEM,
    segment_size: int = 16 * MIB,
    block_size: int = 8192,
) -> bytes:
    """Lay out a long page header field by field (each aligned as the C compiler does)."""
    head = struct.pack("<HHIQI", magic, flags, timeline, address, remaining)
    return head + bytes(4) + struct.pack("<QII", system, segment_size, block_size)


def fault_of(data: bytes, *, name: str = NAME, size: int = 16 * MIB) -> tuple[SegmentFault, str]:
    with pytest.raises(InvalidSegmentError) as caught:
        check_segment(require_file_name(name), data, size, {SYSTEM})
    assert isinstance(caught.value, InvalidWalFileError)
    return caught.value.fault, caught.value.message


@given(
    st.sampled_from(sorted(MAJOR_OF_MAGIC)),
    st.integers(1, 0xFFFFFFFF),
    st.integers(0, MAX_LSN).map(Lsn),
    st.integers(0, 2**64 - 1),
    st.sampled_from([MIB << shift for shift in range(11)]),
)
def test_a_sound_segment_passes_under_its_own_name_alone(
    magic: int, timeline: int, lsn: Lsn, system: int, size: int
) -> None:
    """For every size and position the right name passes, and the neighbour's does not."""
    name = segment_at(timeline, lsn, size)
    start = name.start_lsn(size)
    data = page(magic=magic, timeline=timeline, address=start, system=system, segment_size=size)
    header = check_segment(name, data, size, {system})
    assert (header.timeline, header.page_address, header.wal_segment_size) == (timeline, start, size)
    assert (header.system_identifier, header.server_major) == (system, MAJOR_OF_MAGIC[magic])
    if start >= size:
        with pytest.raises(InvalidSegmentError) as caught:
            check_segment(segment_at(timeline, Lsn(start - size), size), data, size, {system})
        assert caught.value.fault is SegmentFault.WRONG_ADDRESS


@given(st.binary(max_size=64))
def test_other_bytes_are_refused(data: bytes) -> None:
    """Bytes that are no long page header are refused with a reason, whatever they are."""
    with pytest.raises(InvalidSegmentError) as caught:
        parse_long_page_header("x", data)
    assert caught.value.fault in (SegmentFault.TOO_SHORT, SegmentFault.NOT_A_WAL_PAGE)


@pytest.mark.parametrize("size", [0, 1, LONG_HEADER_BYTES - 1])
def test_half_a_header(size: int) -> None:
    """A file shorter than the header is too short: it may still grow."""
    expected = f"'{NAME}' has {size} bytes, expected at least the 40 of a page header"
    assert fault_of(page()[:size], size=size) == (SegmentFault.TOO_SHORT, expected)


@pytest.mark.parametrize("size", [LONG_HEADER_BYTES, 8192, 16 * MIB - 1])
def test_half_a_segment(size: int) -> None:
    """A file shorter than the segment size in its own header is too short."""
    expected = f"'{NAME}' has {size} bytes, expected the segment size 16777216"
    assert fault_of(page(), size=size) == (SegmentFault.TOO_SHORT, expected)


def test_more_than_a_segment() -> None:
    """A file longer than the segment size is not a segment."""
    expected = f"'{NAME}' has 16777217 bytes, expected the segment size 16777216"
    assert fault_of(page(), size=16 * MIB + 1) == (SegmentFault.TOO_LONG, expected)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            bytes(8192),
            "its magic is 0000, expected D106 (13), D10D (14), D110 (15), D113 (16), D116 (17), D118 (18)",
        ),
        (page(magic=0x18D1), "its magic 18D1 is of a big-endian server, which is not supported"),
        (page(flags=0x0004), "its flags are 0004, expected those of a long header"),
        (page(flags=0x0012), "its flags are 0012, expected those of a long header"),
        (page(timeline=0), "its timeline is 0"),
        (page(segment_size=3 * MIB), "its segment size is 3145728, expected a power of two from 1 MiB to 1 GiB"),
        (page(segment_size=0), "its segment size is 0, expected a power of two from 1 MiB to 1 GiB"),
        (page(block_size=8191), "its block size is 8191, expected a power of two from 1 KiB to 64 KiB"),
    ],
)
def test_not_a_wal_page(data: bytes, reason: str) -> None:
    """A page that cannot be a segment's first is refused, with the value that shows it."""
    assert fault_of(data) == (SegmentFault.NOT_A_WAL_PAGE, f"'{NAME}' does not begin with a WAL page: {reason}")


def test_a_renamed_or_recycled_segment() -> None:
    """A page of another position is refused: recycled segments keep their old content under a new name."""
    expected = f"'{NAME}' has the page address 0/4000000, expected 0/5000000 with its segment size 16777216"
    assert fault_of(page(address=4 * 16 * MIB)) == (SegmentFault.WRONG_ADDRESS, expected)


def test_a_name_of_another_segment_size() -> None:
    """A name that no segment of the header's size has is refused as a wrong address."""
    name = "000000020000000000000100"
    expected = f"'{name}' has the page address 1/0, but no segment of 16777216 bytes has this name"
    assert fault_of(page(address=1 << 32), name=name) == (SegmentFault.WRONG_ADDRESS, expected)


def test_a_newer_timelines_page() -> None:
    """No segment has a first page of a timeline newer than its name's."""
    expected = f"'{NAME}' has a first page of timeline 3, expected 2 or lower"
    assert fault_of(page(timeline=3)) == (SegmentFault.WRONG_TIMELINE, expected)


def test_the_old_timelines_page_after_a_promotion() -> None:
    """The first segment of a new timeline begins with the old timeline's page."""
    assert check_segment(require_file_name(NAME), page(timeline=1), 16 * MIB, {SYSTEM}).timeline == 1


def test_another_clusters_segment() -> None:
    """A segment of another cluster is refused, also while it still grows; without wanted clusters it passes."""
    expected = f"'{NAME}' is of the cluster with system identifier 5, expected {SYSTEM}"
    assert fault_of(page(system=5), size=8192) == (SegmentFault.WRONG_CLUSTER, expected)
    assert check_segment(require_file_name(NAME), page(system=5), 16 * MIB, None).system_identifier == 5


def test_a_partial_segment_is_checked_like_the_whole_one() -> None:
    """A partial segment has its segment's position and size."""
    assert check_segment(require_file_name(f"{NAME}.partial"), page(), 16 * MIB, None).timeline == 2
    assert fault_of(page(), name=f"{NAME}.partial", size=4096)[0] is SegmentFault.TOO_SHORT


@pytest.mark.parametrize("name", ["00000002.history", f"{NAME}.00000028.backup"])
def test_other_files_have_no_page(name: str) -> None:
    """Only segments have page headers."""
    with pytest.raises(InvalidWalNameError) as caught:
        check_segment(require_file_name(name), page(), 16 * MIB, None)
    assert caught.value.message == f"'{name}' is not a segment's name"


def test_a_release_that_is_not_known_yet() -> None:
    """A segment of a newer release is archived all the same; its version is unknown."""
    header = check_segment(require_file_name(NAME), page(magic=0xD121), 16 * MIB, None)
    assert (header.magic, header.server_major) == (0xD121, None)


def test_the_rest_of_a_record() -> None:
    """The flags say whether the segment begins inside a record."""
    assert parse_long_page_header(NAME, page(flags=0x0003, remaining=99)).begins_inside_record
    header = parse_long_page_header(NAME, page(flags=0x000A, remaining=99))
    assert not header.begins_inside_record
    assert header.flags == PageFlag.LONG_HEADER | PageFlag.FIRST_IS_OVERWRITE_CONTRECORD
