"""Files reach the disk early, and whoever waits for the disk is told of a write that failed."""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wal_pipeline.commands.restore.places import disk_flush
from wal_pipeline.commands.restore.places.disk_flush import WINDOW_BYTES, DiskFlush, EarlyWriting
from wal_pipeline_tests.support.mounts import mounted


def fails_with(number: int) -> Callable[[int], int]:
    """Return a C function that fails with this errno, as a disk makes it fail that no test can break."""

    def fail(_descriptor: int) -> int:
        ctypes.set_errno(number)
        return -1

    return fail


def test_what_is_written_reaches_the_disk(tmp_path: Path) -> None:
    """The C library's own calls, with the file system that is here."""
    with DiskFlush([tmp_path]) as flush:
        with (tmp_path / "file").open("wb") as file:
            early = EarlyWriting(file.fileno(), 0)
            for written_bytes in range(WINDOW_BYTES // 2, 3 * WINDOW_BYTES, WINDOW_BYTES // 2):
                file.write(b"x" * (WINDOW_BYTES // 2))
                file.flush()
                early.reached(written_bytes)
        flush.run()
    assert (tmp_path / "file").read_bytes() == b"x" * (WINDOW_BYTES * 5 // 2)


def test_the_disk_begins_with_each_window_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From where the part begins, and only once a whole window waits."""
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(disk_flush, "_sync_file_range", lambda *words: asked.append(words) or 0)
    early = EarlyWriting(7, 100)
    for offset_bytes in (100 + WINDOW_BYTES - 1, 100 + WINDOW_BYTES, 101 + WINDOW_BYTES, 100 + 3 * WINDOW_BYTES):
        early.reached(offset_bytes)
    assert [(descriptor, begin, size) for descriptor, begin, size, _ in asked] == [
        (7, 100, WINDOW_BYTES),
        (7, 100 + WINDOW_BYTES, 2 * WINDOW_BYTES),
    ]


def test_a_file_whose_disk_cannot_begin_early_is_no_fault(tmp_path: Path) -> None:
    """A pipe has no range to begin with: the call fails, and the bytes are there all the same."""
    reading, writing = os.pipe()
    try:
        EarlyWriting(writing, 0).reached(WINDOW_BYTES)
        os.write(writing, b"x")
        assert os.read(reading, 2) == b"x"
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_failed_is_told_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A disk may take a write and lose it later."""
    monkeypatch.setattr(disk_flush, "_syncfs", fails_with(number))
    with DiskFlush([tmp_path]) as flush, pytest.raises(OSError, match=os.strerror(number)) as told:
        flush.run()
    assert (told.value.errno, told.value.filename) == (number, str(tmp_path))


def test_a_c_library_without_the_call_flushes_all_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells of failed writes there."""
    flushed: list[bool] = []
    monkeypatch.setattr(disk_flush, "_syncfs", None)
    monkeypatch.setattr(os, "sync", lambda: flushed.append(True))
    with DiskFlush([tmp_path]) as flush:
        flush.run()
    assert flushed == [True]


def test_each_file_system_is_flushed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mounted disk below a folder is one more, also two folders deep; what lies behind a link is not ours."""
    flushed: list[str] = []
    monkeypatch.setattr(
        disk_flush,
        "_syncfs",
        lambda descriptor: flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink())) or 0,
    )
    top, other = tmp_path / "top", tmp_path / "other"
    (top / "deep").mkdir(parents=True)
    other.mkdir()
    with mounted(top / "deep" / "mounted", 1) as below, mounted(tmp_path / "elsewhere", 1) as elsewhere:
        (top / "link").symlink_to(elsewhere)
        with DiskFlush([top, other]) as flush:
            flush.run()
    assert flushed == [str(top), str(below)]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It names the folder."""
    with pytest.raises(FileNotFoundError) as told:
        DiskFlush([tmp_path, tmp_path / "missing"])
    assert told.value.filename == str(tmp_path / "missing")
