"""Names of the WAL archive: round trips, order and positions, for every segment size."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wal_pipeline.errors import InvalidWalNameError
from wal_pipeline.wal.lsn import MAX_LSN, Lsn
from wal_pipeline.wal.names import (
    FileKind,
    check_wal_segment_size,
    history_name,
    parse_file_name,
    require_file_name,
    segment_at,
    segment_name,
)

MIB = 1 << 20
sizes = st.sampled_from([MIB << shift for shift in range(11)])
timelines = st.integers(1, 0xFFFFFFFF)
lsns = st.integers(0, MAX_LSN).map(Lsn)


@given(timelines, lsns, sizes)
def test_segment_names_read_back(timeline: int, lsn: Lsn, size: int) -> None:
    """The name made for an LSN parses to the same value, and its segment holds the LSN."""
    name = segment_at(timeline, lsn, size)
    assert parse_file_name(name.name) == name
    assert name.kind is FileKind.SEGMENT
    assert name.start_lsn(size) <= lsn <= name.end_lsn(size)
    assert segment_name(timeline, name.number(size), size) == name


@given(timelines, lsns, lsns, sizes)
def test_order_of_names_is_order_of_lsns(timeline: int, one: Lsn, other: Lsn, size: int) -> None:
    """On a timeline, names sort as text and by ``order`` as their LSNs do."""
    first, second = sorted((one // size, other // size))
    assume(first < second)
    before, after = segment_name(timeline, first, size), segment_name(timeline, second, size)
    assert before.name < after.name
    assert before.order < after.order
    assert before.start_lsn(size) < after.start_lsn(size)


@given(timelines, lsns, sizes)
def test_segments_follow_without_a_gap(timeline: int, lsn: Lsn, size: int) -> None:
    """A segment ends where the next one begins."""
    name = segment_at(timeline, lsn, size)
    assume(name.number(size) < (1 << 64) // size - 1)
    following = name.next(size)
    assert following.start_lsn(size) == name.end_lsn(size) == name.start_lsn(size) + size
    assert following.timeline == timeline


@pytest.mark.parametrize("size", [MIB << shift for shift in range(11)])
def test_the_last_segment_of_all(size: int) -> None:
    """The last segment ends at the last LSN there is, and nothing follows it."""
    last = segment_at(1, Lsn(MAX_LSN), size)
    assert last.end_lsn(size) == MAX_LSN
    with pytest.raises(InvalidWalNameError):
        last.next(size)


@pytest.mark.parametrize("size", [MIB << shift for shift in range(11)])
def test_the_log_number_rises_after_4_gib(size: int) -> None:
    """The second eight digits count 4 GiB, whatever the segment size."""
    assert segment_at(1, Lsn((1 << 32) - 1), size).next(size).name == "000000010000000100000000"


@given(timelines, lsns, sizes, st.integers(0, 0xFFFFFFFF))
def test_names_that_begin_with_a_segments(timeline: int, lsn: Lsn, size: int, offset: int) -> None:
    """Partial segments and backup history files have the position of the segment that they name, and come after it."""
    segment = segment_at(timeline, lsn, size)
    partial = require_file_name(f"{segment.name}.partial")
    backup = require_file_name(f"{segment.name}.{offset:08X}.backup")
    assert (partial.kind, backup.kind) == (FileKind.PARTIAL, FileKind.BACKUP_HISTORY)
    assert partial.start_lsn(size) == backup.start_lsn(size) == segment.start_lsn(size)
    assert segment.order < partial.order < backup.order


@given(timelines, timelines, lsns)
def test_history_files_come_first(timeline: int, other: int, lsn: Lsn) -> None:
    """A timeline history file is archived before any segment: without it no restore finds the timeline."""
    history = history_name(timeline)
    assert parse_file_name(history.name) == history
    assert history.order < segment_at(other, lsn, 16 * MIB).order


@given(st.text(max_size=50))
def test_any_text_is_read_or_refused(text: str) -> None:
    """A text that parses is exactly the name that was read, in PostgreSQL's characters only."""
    name = parse_file_name(text)
    assert name is None or (name.name == text and set(text) <= set("0123456789ABCDEF.historypartialbackup"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "00000001000000000000001",
        "0000000100000000000000010",
        "00000001000000000000000a",
        "000000000000000000000001",
        "00000000.history",
        "000000010000000000000001.partial.partial",
        "000000010000000000000001.gz",
        "000000010000000000000001\n",
        "000000010000000000000001.0000028.backup",
        "00000001.history.tmp",
        "../000000010000000000000001",
        "archtemp.000000010000000000000001.123.456",
        "RECOVERYXLOG",
        "٠٠٠٠٠٠٠١٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠١",  # noqa: RUF001  digits of another script
    ],
)
def test_other_names_are_refused(name: str) -> None:
    """A name that PostgreSQL does not give is no name of the archive."""
    assert parse_file_name(name) is None
    with pytest.raises(InvalidWalNameError) as caught:
        require_file_name(name)
    assert caught.value.message == f"'{name}' is not the name of a file of the WAL archive"


def test_a_number_beyond_the_log_is_refused() -> None:
    """A name whose last digits no segment of the size reaches is refused."""
    name = require_file_name("000000010000000000000100")
    assert name.number(MIB) == 0x100
    with pytest.raises(InvalidWalNameError) as caught:
        name.number(16 * MIB)
    assert caught.value.message == (
        "'000000010000000000000100' cannot be a segment of 16777216 bytes: its last eight digits are at most 000000FF"
    )


def test_a_history_file_has_no_position() -> None:
    """A timeline history file lies at no LSN."""
    with pytest.raises(InvalidWalNameError) as caught:
        history_name(2).start_lsn(MIB)
    assert caught.value.message == "'00000002.history' is a timeline history file and has no segment number"


@pytest.mark.parametrize("size", [0, -MIB, MIB - 1, MIB // 2, 3 * MIB, 2048 * MIB])
def test_other_segment_sizes_are_refused(size: int) -> None:
    """A segment size is a power of two from 1 MiB to 1 GiB, as for initdb."""
    with pytest.raises(InvalidWalNameError) as caught:
        check_wal_segment_size(size)
    assert caught.value.message == f"{size} is not a WAL segment size: expected a power of two from 1 MiB to 1 GiB"
