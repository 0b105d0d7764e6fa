"""Files reach the disk early, and whoever waits for the disk is told of a write that failed."""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wal_pipeline.commands.restore.places import disk_flush
from wal_pipeline.commands.restore.places.disk_flush import (
    DEAR_CPU_SECONDS_A_BYTE,
    WINDOW_BYTES,
    DiskFlush,
    EarlyWriting,
)
from wal_pipeline_tests.support.mounts import mounted


def fails_with(number: int) -> Callable[[int], int]:
    """Return a C function that fails with this errno, as a disk makes it fail that no test can break."""

    def fail(_descriptor: int) -> int:
        ctypes.set_errno(number)
        return -1

    return fail


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What is asked of the kernel: where a range begins, its size, and how far it goes."""
    found: list[tuple[object, ...]] = []
    monkeypatch.setattr(disk_flush, "_sync_file_range", lambda *words: found.append(words[1:]) or 0)
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: found.append((*words[1:3], "gone")))
    return found


@pytest.mark.parametrize("cpu_seconds", [0.0, 1.0])
def test_what_is_written_reaches_the_disk(tmp_path: Path, cpu_seconds: float) -> None:
    """The C library's own calls, with the file system that is here, and whether memory is dear or not."""
    with DiskFlush([tmp_path]) as flush:
        with (tmp_path / "file").open("wb") as file:
            early = EarlyWriting(file.fileno(), 0)
            for _ in range(5):
                file.write(b"x" * (WINDOW_BYTES // 2))
                file.flush()
                early.wrote(WINDOW_BYTES // 2, cpu_seconds)
            early.end()
        flush.run()
    assert (tmp_path / "file").read_bytes() == b"x" * (WINDOW_BYTES * 5 // 2)


def test_the_disk_begins_with_each_window_once(asked: list[tuple[object, ...]]) -> None:
    """From where the part begins, and only once a whole window waits."""
    early = EarlyWriting(7, 100)
    for size_bytes in (WINDOW_BYTES - 1, 1, 1, 2 * WINDOW_BYTES, 5):
        early.wrote(size_bytes, DEAR_CPU_SECONDS_A_BYTE * size_bytes * 0.9)
    early.end()
    assert asked == [(100, WINDOW_BYTES, 2), (100 + WINDOW_BYTES, 2 * WINDOW_BYTES + 1, 2)]


def test_dear_memory_is_given_back_once_the_disk_has_what_it_held(asked: list[tuple[object, ...]]) -> None:
    """Each window is waited for only when the next one has begun, or at the end."""
    early = EarlyWriting(7, 100)
    for factor in (0.5, 1.5, 0.5):
        early.wrote(WINDOW_BYTES, DEAR_CPU_SECONDS_A_BYTE * WINDOW_BYTES * factor)
    early.wrote(5, 0.0)
    early.end()
    at = [100 + number * WINDOW_BYTES for number in range(4)]
    assert asked == [
        (at[0], WINDOW_BYTES, 2),
        (at[1], WINDOW_BYTES, 2),
        (at[0], WINDOW_BYTES, 7),
        (at[0], WINDOW_BYTES, "gone"),
        (at[2], WINDOW_BYTES, 2),
        (at[1], WINDOW_BYTES, 7),
        (at[1], WINDOW_BYTES, "gone"),
        (at[2], WINDOW_BYTES + 5, 7),
        (at[2], WINDOW_BYTES + 5, "gone"),
    ]


def test_a_file_whose_disk_cannot_begin_early_is_no_fault() -> None:
    """A pipe has no range to begin with: the calls fail, and the bytes are there all the same."""
    reading, writing = os.pipe()
    try:
        early = EarlyWriting(writing, 0)
        early.wrote(WINDOW_BYTES, 1.0)
        early.end()
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
