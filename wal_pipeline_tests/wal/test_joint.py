"""What a segment's pages say of its neighbours: the record before, the rest of it, and where its timeline begins."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.wal.joint import Joint, SegmentJoints, read_joints
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment
from wal_pipeline_tests.support.segments import segment_bytes
from wal_pipeline_tests.support.wal_writer import MIB, WalWriter

lengths = st.lists(st.integers(24, 5000) | st.integers(24, 3 * MIB), min_size=1, max_size=30)


def joints(writer: WalWriter, timeline: int = 1) -> list[SegmentJoints]:
    """Read the joints of all segments that a writer finished."""
    return [joints_of(data, timeline, number) for number, data in writer.segments()]


def joints_of(data: bytes, timeline: int, number: int) -> SegmentJoints:
    header = check_segment(segment_name(timeline, number, MIB), data[:LONG_HEADER_BYTES], MIB, None)
    return read_joints(data, header, timeline)


@given(lengths, st.sets(st.integers(0, 29)))
def test_each_segment_of_one_server_fits_the_one_before(lengths: list[int], switches: set[int]) -> None:
    """Whatever the records' lengths, and wherever the server switches to the next segment."""
    writer = WalWriter()
    for index, length in enumerate(lengths):
        writer.record(length)
        if index in switches:
            writer.switch()
    writer.switch()
    for before, after in pairwise(joints(writer)):
        assert before.ends is not None
        assert after.begins is not None
        assert before.ends.fits(after.begins)


@given(lengths, lengths)
def test_segments_of_two_servers_do_not_fit(mine: list[int], theirs: list[int]) -> None:
    """Two servers went on from one place with different records; a joint knows its last record and that one's rest."""
    one, other = WalWriter(), WalWriter()
    for writer, lengths in ((one, mine), (other, theirs)):
        for length in lengths:
            writer.record(length)
        writer.switch()
        writer.record(100)
        writer.switch()
    ends = {number: joints_of(data, 1, number).ends for number, data in one.segments()}
    begins = {number: joints_of(data, 1, number).begins for number, data in other.segments()}
    for number, end in ends.items():
        begin = begins.get(number + 1)
        if end is not None and begin is not None and None not in (end.record, begin.record):
            assert end.fits(begin) == (one.joint_after(number) == other.joint_after(number))


def test_a_timeline_that_begins_inside_a_segment() -> None:
    """Its first page is the parent's, and its own pages begin after the switch."""
    writer = WalWriter()
    for _ in range(100):
        writer.record(500)
    switch = writer.position
    writer.timeline = 2
    for _ in range(100):
        writer.record(500)
    writer.switch()
    (found,) = joints(writer, 2)
    assert found.first_timeline == 1
    assert found.own_from is not None
    assert found.own_from - 8192 <= switch <= found.own_from


def test_wal_that_was_begun_anew_says_so() -> None:
    """pg_resetwal writes a first record that names no record before it."""
    writer = WalWriter()
    writer.record(100)
    writer.switch()
    (found,) = joints(writer)
    assert found.begins is not None
    assert found.begins.is_new_beginning


def test_a_record_that_was_given_up_leaves_the_joint_unknown() -> None:
    """A server that crashed within a record goes on behind it, and its next record names an earlier one."""
    writer = WalWriter()
    writer.record(MIB + 5000)
    writer.switch()
    _, (number, data) = writer.segments()
    flags = (0x0002 | 0x0008).to_bytes(2, "little")
    assert joints_of(data[:2] + flags + data[4:], 1, number).begins is None


def test_a_record_that_was_given_up_is_named_where_the_server_says_which() -> None:
    """The first record of the next segment names it: that segment continues only the one with that record."""
    writer = WalWriter()
    given_up = writer.record(MIB + 5000)
    writer.switch()
    first, (number, data) = writer.segments()
    record = struct.pack("<IIQBBxxI2sQQ", 42, 0, 0x99, 0xD0, 0, 7, b"\xff\x10", given_up, 0)
    flags = (0x0002 | 0x0008).to_bytes(2, "little")
    after = data[:2] + flags + data[4:40] + record + data[40 + len(record) :]
    begins, ends = joints_of(after, 1, number).begins, joints_of(first[1], 1, number - 1).ends
    assert begins == Joint(given_up, None)
    assert ends is not None
    assert ends.fits(begins)
    assert ends.proves(begins)
    assert not Joint(Lsn(given_up - 8), 0).fits(begins)


def test_bytes_that_are_no_records_tell_nothing() -> None:
    """Pages of noise have neither end, and no error."""
    assert joints_of(segment_bytes(3), 1, 3) == SegmentJoints(1, None, Joint(None, 0))


@pytest.mark.parametrize("joint", [Joint(Lsn(0x2FFFF98), 112), Joint(None, 0), Joint(Lsn(0), 0), Joint(Lsn(8), None)])
def test_a_joint_is_written_and_read(joint: Joint) -> None:
    """As one word of an object's metadata."""
    assert Joint.parse(str(joint)) == joint


@pytest.mark.parametrize("text", ["", "0/1", "0/1+", "0/1+-2", "x+1", "?+²", "0/1+-"])
def test_a_text_that_is_no_joint_is_refused(text: str) -> None:
    """It may come from a bucket that others write to."""
    with pytest.raises(ValueError, match=r".+"):
        Joint.parse(text)
