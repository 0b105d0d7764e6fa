"""Bytes are read from the very segment that is asked for, also where PostgreSQL renames files meanwhile."""

import os
from pathlib import Path

import pytest

from wal_pipeline.errors import PostgresError, SegmentGoneError
from wal_pipeline.postgres.open_segment import PaddingError, SegmentBytes, read_segment_bytes
from wal_pipeline.wal.names import segment_name
from wal_pipeline_tests.support.nobody import as_nobody, nobodys_folder
from wal_pipeline_tests.support.segments import OTHER_SYSTEM_IDENTIFIER, SYSTEM_IDENTIFIER
from wal_pipeline_tests.support.wal_writer import BLOCK, MIB, WalWriter


def segments_of_wal() -> dict[int, bytes]:
    """Return segments 1 and 2 full of records, and 3 that ends with a switch in its first quarter."""
    writer = WalWriter()
    while writer.position < 3 * MIB + MIB // 4:
        writer.record(5000)
    writer.switch()
    return dict(writer.segments())


SEGMENTS = segments_of_wal()


def put(folder: Path, number: int, content: bytes) -> Path:
    """Put a file under a segment's name."""
    path = folder / segment_name(1, number, MIB).name
    path.write_bytes(content)
    return path


def read(
    path: Path, start: int, end: int, number: int = 2, *, finished: bool = False, of: int = SYSTEM_IDENTIFIER
) -> bytes:
    """Read as the shipper does."""
    wanted = SegmentBytes(segment_name(1, number, MIB), start, end, finished)
    return read_segment_bytes(path, wanted, system_identifier=of, wal_segment_size=MIB)


@pytest.mark.parametrize(("start", "end"), [(0, 41), (0, MIB), (100, 200), (BLOCK, 3 * BLOCK), (12345, 67890)])
def test_bytes_between_any_two_offsets_are_read(tmp_path: Path, start: int, end: int) -> None:
    """Offsets need not lie on the border of a page."""
    path = put(tmp_path, 2, SEGMENTS[2])
    assert read(path, start, end) == SEGMENTS[2][start:end]


def test_a_segment_that_is_gone_says_so(tmp_path: Path) -> None:
    """The server removed it: it is archived, and the caller looks again."""
    path = tmp_path / segment_name(1, 2, MIB).name
    with pytest.raises(SegmentGoneError, match=f"'{path}' is gone: the server has removed or recycled it"):
        read(path, 0, 100)


def test_a_recycled_segment_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    """The old segment under the new name has the old one's address on each page."""
    path = put(tmp_path, 2, SEGMENTS[1])
    with pytest.raises(PostgresError, match="has the page address 0/100000, expected 0/200000"):
        read(path, 0, 100)


def test_a_recycled_segment_that_is_half_overwritten_gives_its_new_pages_only(tmp_path: Path) -> None:
    """What lies behind the pages that were written again is the old segment's."""
    path = put(tmp_path, 2, SEGMENTS[2][: 4 * BLOCK] + SEGMENTS[1][4 * BLOCK :])
    assert read(path, 0, 4 * BLOCK) == SEGMENTS[2][: 4 * BLOCK]
    with pytest.raises(PostgresError, match=r"has at 32768 a page with .* address 0/108000, expected .* and 0/208000"):
        read(path, BLOCK, 5 * BLOCK)


def test_a_rename_in_the_middle_of_a_read_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL recycles the segment after it was opened: its bytes are not handed out under a name that moved on."""
    path = put(tmp_path, 2, SEGMENTS[2])
    pread = os.pread

    def recycle_then_read(descriptor: int, size: int, offset: int) -> bytes:
        if path.exists():
            path.rename(tmp_path / segment_name(1, 9, MIB).name)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", recycle_then_read)
    with pytest.raises(SegmentGoneError):
        read(path, 0, 100)


def test_another_file_under_the_name_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name stands for another file at the end of the read than at its beginning."""
    path = put(tmp_path, 2, SEGMENTS[2])
    pread = os.pread

    def replace_then_read(descriptor: int, size: int, offset: int) -> bytes:
        put(tmp_path, 8, SEGMENTS[1]).replace(path)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", replace_then_read)
    with pytest.raises(SegmentGoneError):
        read(path, 0, 100)


def test_the_zeros_behind_a_switch_belong_to_a_finished_segment(tmp_path: Path) -> None:
    """A switch leaves pages of zeros up to the end; before the segment is finished they may be anything."""
    path = put(tmp_path, 3, SEGMENTS[3])
    assert read(path, 0, MIB, 3, finished=True) == SEGMENTS[3]
    assert read(path, MIB // 2, MIB, 3, finished=True) == bytes(MIB // 2)
    with pytest.raises(PaddingError, match="has zeros from 270336 on, before what is flushed"):
        read(path, 0, MIB // 2, 3)


def test_zeros_in_the_middle_are_refused(tmp_path: Path) -> None:
    """A page of zeros before pages of WAL was lost, also in a finished segment."""
    holed = SEGMENTS[2][:BLOCK] + bytes(BLOCK) + SEGMENTS[2][2 * BLOCK :]
    path = put(tmp_path, 2, holed)
    with pytest.raises(
        PostgresError, match=r"has at 8192 a page with magic 0000, timeline 0 and address 0/0"
    ) as raised:
        read(path, 0, MIB, finished=True)
    assert not isinstance(raised.value, PaddingError)


def test_another_clusters_segment_is_refused(tmp_path: Path) -> None:
    """The first page names its cluster."""
    path = put(tmp_path, 2, SEGMENTS[2])
    with pytest.raises(PostgresError, match=f"system identifier {SYSTEM_IDENTIFIER}, expected") as raised:
        read(path, 0, 100, of=OTHER_SYSTEM_IDENTIFIER)
    assert "not this server's pg_wal" in str(raised.value.hint)


@pytest.mark.parametrize("size", [0, 20, MIB // 2])
def test_a_file_that_is_too_short_is_refused(tmp_path: Path, size: int) -> None:
    """PostgreSQL gives a segment its name when it has its whole size."""
    path = put(tmp_path, 2, SEGMENTS[2][:size])
    with pytest.raises(PostgresError):
        read(path, 0, 100)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """PostgreSQL makes no links in pg_wal."""
    path = tmp_path / segment_name(1, 2, MIB).name
    path.symlink_to(put(tmp_path, 7, SEGMENTS[2]))
    with pytest.raises(PostgresError, match="Too many levels of symbolic links"):
        read(path, 0, 100)


def test_a_folder_that_is_closed_names_both_users() -> None:
    """The error says who may not read, whose folder it is, and what to do."""
    with nobodys_folder("pg_wal") as folder:
        path = put(folder, 2, SEGMENTS[2])
        os.chown(folder, 0, 0)
        said = as_nobody(lambda: read(path, 0, 100))
    assert f"'{path}' cannot be read by user 'nobody': '{folder}' belongs to user 'root', and is closed" in said
    assert "Run 'wal-pipeline ship' as user 'root' (User=root in its systemd unit)" in said


def test_a_file_that_is_closed_names_both_users() -> None:
    """A data directory with group access has files that only the group may read."""
    with nobodys_folder("pg_wal") as folder:
        path = put(folder, 2, SEGMENTS[2])
        path.chmod(0o600)
        os.chown(path, 0, 0)
        said = as_nobody(lambda: read(path, 0, 100))
    assert f"'{path}' cannot be read by user 'nobody': '{path}' belongs to user 'root', and is closed to others" in said
