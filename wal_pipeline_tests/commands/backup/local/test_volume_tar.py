"""The frame of a volume's tar is read by standard programs, and refuses names that a tar cannot hold."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from wal_pipeline.commands.backup.local.volume_tar import BLOCK_BYTES, TAR_END, framed_size, member_header, padding
from wal_pipeline.errors import BaseBackupError


def test_gnu_tar_extracts_names_modes_times_and_bytes(tmp_path: Path) -> None:
    """Files, an empty file, a folder and a name of more than a hundred bytes come back as they were."""
    long = f"pg_tblspc/16390/{'d' * 80}/{'f' * 70}"
    files = {"base/5/16384": b"x" * 8192, "PG_VERSION": b"18\n", "base/5/empty": b"", long: b"1234"}
    tar = bytearray(member_header("pg_twophase/", 0, 0o700, 0, is_folder=True))
    for name, data in files.items():
        member = member_header(name, len(data), 0o640, 1_700_000_000_999_999_999) + data + padding(len(data))
        assert len(member) == framed_size(len(data))
        tar += member
    subprocess.run(["tar", "-xp", "-C", tmp_path], input=bytes(tar + TAR_END), check=True, timeout=60)
    for name, data in files.items():
        status = (tmp_path / name).stat()
        assert (tmp_path / name).read_bytes() == data
        assert (status.st_mode & 0o7777, int(status.st_mtime)) == (0o640, 1_700_000_000)
    assert (tmp_path / "pg_twophase").stat().st_mode & 0o7777 == 0o700


def test_a_name_that_is_not_utf_8_keeps_its_bytes() -> None:
    """The bytes of the file system go into the header, and come out of it."""
    name = os.fsdecode(b"base/5/caf\xe9")
    header = member_header(name, 0, 0o600, 0)
    assert b"base/5/caf\xe9\0" in header
    with tarfile.open(fileobj=io.BytesIO(header + TAR_END)) as tar:
        assert [one.name for one in tar] == [name]


def test_a_size_of_eight_gib_is_written_in_base_256() -> None:
    """The largest octal number and the one behind it are read as what they are."""
    for size in ((8 << 30) - 1, 8 << 30, 3 << 40):
        info = tarfile.TarInfo.frombuf(member_header("base/5/16384", size, 0o600, 0), "utf-8", "surrogateescape")
        assert (info.name, info.size) == ("base/5/16384", size)


@pytest.mark.parametrize("name", ["f" * 101, f"{'d' * 160}/{'f' * 99}", f"{'d' * 100}/{'f' * 101}"])
def test_a_name_that_a_tar_cannot_hold_is_an_error(name: str) -> None:
    """The error names the file, and says the way out."""
    with pytest.raises(BaseBackupError) as caught:
        member_header(name, 1, 0o600, 0)
    assert caught.value.message == f"file {name.encode()!r} cannot be stored in a tar: its name is too long"
    assert caught.value.hint == "PostgreSQL makes no such file. Move it out of the data directory."


def test_a_long_name_of_a_file_of_eight_gib_is_an_error() -> None:
    """A header with base 256 has no field for the first half of a name."""
    with pytest.raises(BaseBackupError, match="its name is too long"):
        member_header(f"{'d' * 80}/{'f' * 80}", 8 << 30, 0o600, 0)


@pytest.mark.parametrize("modified_ns", [-5, 1 << 100])
def test_times_that_a_tar_cannot_hold_are_the_nearest_that_it_can(modified_ns: int) -> None:
    """A file from before 1970 or from far ahead is stored all the same."""
    info = tarfile.TarInfo.frombuf(member_header("f", 0, 0o600, modified_ns), "utf-8", "strict")
    assert info.mtime == (0 if modified_ns < 0 else (8 << 30) - 1)


def test_padding_fills_a_block() -> None:
    """No block is begun for nothing."""
    assert [len(padding(size)) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]
    assert framed_size(0) == BLOCK_BYTES
