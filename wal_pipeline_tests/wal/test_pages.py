"""Where records end, over page headers and segment borders."""

from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.page_header import LongPageHeader, PageFlag
from wal_pipeline.wal.pages import first_record, record_end

MIB = 1 << 20


def slow_end(start: int, size_bytes: int, wal_segment_size: int, block_size: int) -> int:
    """Count a record's bytes one by one."""
    position = start
    for _ in range(size_bytes):
        if position % block_size == 0:
            position += 40 if position % wal_segment_size == 0 else 24
        position += 1
    return position


@given(st.integers(0, 3 * MIB // 8).map(lambda n: n * 8), st.integers(1, 40_000))
def test_the_end_is_found_as_by_counting(start: int, size_bytes: int) -> None:
    """The end is that of counting each byte and stepping over each header."""
    assert record_end(Lsn(start), size_bytes, MIB, 8192) == slow_end(start, size_bytes, MIB, 8192)


@given(st.integers(0, 100_000))
def test_the_first_record_of_a_segment_is_aligned(remaining: int) -> None:
    """The first record begins at the next multiple of eight after the rest of the one before."""
    flags = PageFlag.LONG_HEADER | PageFlag.FIRST_IS_CONTRECORD
    header = LongPageHeader(0xD118, flags, 1, Lsn(MIB), remaining, 1, MIB, 8192)
    end = slow_end(MIB, remaining, MIB, 8192) if remaining else MIB + 40
    assert first_record(header) == -(-end // 8) * 8


def test_without_a_rest_the_first_record_follows_the_header() -> None:
    """A segment that begins with a record has it just after the long header."""
    header = LongPageHeader(0xD118, PageFlag.LONG_HEADER, 1, Lsn(MIB), 0, 1, MIB, 8192)
    assert first_record(header) == MIB + 40
