"""Tests which files the spool lists, reads, releases and quarantines, and which it never touches."""

import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.errors import BeingWrittenError, SpoolError
from wal_pipeline.spool import LOCK_NAME, Spool, SpoolFile
from wal_pipeline.wal.names import parse_file_name
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, history_bytes, name_of, segment_bytes, spool_segments

SETTLE_SECONDS = 60.0


class TestTime:
    """A monotonic clock to move."""

    __test__ = False

    def __init__(self) -> None:
        self.passed_seconds = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.passed_seconds


@pytest.fixture
def monotonic() -> TestTime:
    return TestTime()


@pytest.fixture
def spool(tmp_path: Path, monotonic: TestTime) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool", tmp_path / "quarantine", SETTLE_SECONDS, monotonic=monotonic)


def now(**later: float) -> datetime:
    return datetime.now(UTC) + timedelta(**later)


def found(spool: Spool, name: str) -> SpoolFile:
    file = spool.find(parse_file_name(name), now())  # type: ignore[arg-type]
    assert file is not None
    return file


def test_ready_files_are_in_archiving_order(spool: Spool) -> None:
    """History files come first, then each timeline's files by position, each segment before its other files."""
    names = [
        "00000002.history",
        "00000003.history",
        name_of(1),
        name_of(2),
        f"{name_of(2)}.00000028.backup",
        f"{name_of(3)}.partial",
        name_of(5000),
        name_of(1, timeline=2),
    ]
    for name in reversed(names):
        small = name.endswith((".history", ".backup"))
        (spool.folder / name).write_bytes(history_bytes([1]) if small else bytes(SEGMENT_BYTES))
    listing = spool.scan(now())
    assert [file.name.name for file in listing.ready] == names
    assert listing.growing == listing.foreign == ()
    assert listing.size_bytes == 5 * SEGMENT_BYTES + 3 * len(history_bytes([1]))


def test_temporary_names_are_not_even_foreign(spool: Spool) -> None:
    """Temporary names of basic_archive, of ours and of a shell are not even listed as foreign."""
    for name in ("archtemp.000000010000000000000001.1.2", f".{name_of(1)}", ".nfs000", LOCK_NAME):
        (spool.folder / name).write_bytes(bytes(SEGMENT_BYTES))
    listing = spool.scan(now(hours=1))
    assert (listing.ready, listing.growing, listing.foreign) == ((), (), ())


def symlink(path: Path) -> None:
    (path.parent.parent / "outside").write_bytes(segment_bytes(1))
    path.symlink_to(path.parent.parent / "outside")


def broken_link(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have 108 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a device needs root")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


@pytest.mark.parametrize("make", [symlink, broken_link, folder, pipe, unix_socket, device])
def test_what_is_no_plain_file_is_foreign(spool: Spool, make: Callable[[Path], None]) -> None:
    """Such an entry is listed as foreign, and neither found, opened nor followed."""
    make(spool.folder / name_of(1))
    listing = spool.scan(now(hours=1))
    assert (listing.ready, listing.growing, listing.foreign) == ((), (), (name_of(1),))
    assert spool.find(parse_file_name(name_of(1)), now()) is None  # type: ignore[arg-type]


def test_a_file_that_became_a_link_is_not_read(spool: Spool, tmp_path: Path) -> None:
    """A link that takes the place of a listed file is not followed."""
    spool_segments(spool.folder, [1])
    file = found(spool, name_of(1))
    (tmp_path / "secret").write_bytes(segment_bytes(1))
    spool.path(file).unlink()
    spool.path(file).symlink_to(tmp_path / "secret")
    with pytest.raises(SpoolError, match=f"has '{name_of(1)}', which cannot be read"):
        spool.read(file)


@pytest.mark.parametrize("make", [pipe, folder, unix_socket, device])
def test_what_took_a_listed_files_place_is_not_opened(spool: Spool, make: Callable[[Path], None]) -> None:
    """The new entry is neither waited for, read, removed nor moved."""
    spool_segments(spool.folder, [1])
    file = found(spool, name_of(1))
    spool.path(file).unlink()
    make(spool.path(file))
    kind = stat.S_IFMT(spool.path(file).lstat().st_mode)
    with suppress(SpoolError):  # a socket cannot be opened at all
        assert spool.read(file) is None
    assert spool.release(file) is False
    assert spool.quarantine(file, now()) is None
    assert stat.S_IFMT(spool.path(file).lstat().st_mode) == kind


@given(st.text(min_size=1, max_size=40))
def test_names_that_are_not_postgresqls(name: str) -> None:
    """Only PostgreSQL's own names are parsed as such."""
    parsed = parse_file_name(name)
    assert parsed is None or (parsed.name == name and name[:8].isalnum() and name.isascii())


@pytest.mark.parametrize(
    ("size", "whole"),
    [
        (0, False),
        (1, False),
        (SEGMENT_BYTES - 1, False),
        (SEGMENT_BYTES, True),
        (SEGMENT_BYTES + 1, False),
        (3 * SEGMENT_BYTES, False),
        (16 * SEGMENT_BYTES, True),
        (1 << 30, True),
        (1 << 31, False),
    ],
)
def test_a_segments_size(spool: Spool, monotonic: TestTime, size: int, whole: bool) -> None:
    """A segment has a power of two from 1 MiB to 1 GiB. Another size is growing, and half a file once it settled."""
    with (spool.folder / name_of(1)).open("wb") as file:
        file.truncate(size)
    listing = spool.scan(now())
    assert (len(listing.ready), len(listing.growing)) == ((1, 0) if whole else (0, 1))
    monotonic.passed_seconds = SETTLE_SECONDS + 1
    (settled,) = spool.scan(now(seconds=SETTLE_SECONDS + 1)).ready
    assert (settled.settled, settled.whole_size) == (True, whole)


def test_the_modification_time_does_not_settle_a_file(spool: Spool) -> None:
    """The change time of the inode counts, because ``cp -p`` gives a growing copy an old modification time."""
    path = spool.folder / name_of(1)
    path.write_bytes(b"half")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert [file.name.name for file in spool.scan(now()).growing] == [name_of(1)]
    assert spool.scan(now()).growing[0].spooled_at == datetime.fromtimestamp(1_000_000_000, UTC)


@pytest.mark.parametrize("year", [-1200, 12_000])
def test_a_time_that_is_none(tmp_path: Path, year: int) -> None:
    """For a modification time outside every calendar the change time of the inode counts."""
    memory = Path("/dev/shm")  # noqa: S108 - many file systems on disk have no such times
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        spool = Spool(Path(name), tmp_path / "quarantine", SETTLE_SECONDS)
        spool_segments(spool.folder, [1, 2])
        seconds = (year - 1970) * 31_556_952
        os.utime(spool.folder / name_of(1), (seconds, seconds))
        if int((spool.folder / name_of(1)).stat().st_mtime) != seconds:
            pytest.skip("this file system has no such time")
        first, second = spool.scan(now()).ready
        assert abs((first.spooled_at - second.spooled_at).total_seconds()) < 60
        assert spool.read(first) == segment_bytes(1)
        assert spool.release(first)


@pytest.mark.parametrize("jump", [-86_400, -100, 100, 86_400])
def test_a_clock_that_jumps_does_not_settle_files(spool: Spool, monotonic: TestTime, jump: int) -> None:
    """Only passing time settles a file, not a step of the clock, in this process or the next."""
    (spool.folder / name_of(1)).write_bytes(b"half")
    assert not spool.scan(now()).growing[0].settled
    for _ in range(2):
        assert [file.name.name for file in spool.scan(now(seconds=jump)).growing] == [name_of(1)]
        spool = Spool(spool.folder, spool.quarantine_folder, SETTLE_SECONDS, monotonic=monotonic)
    monotonic.passed_seconds = SETTLE_SECONDS + 1
    assert spool.scan(now(seconds=jump + SETTLE_SECONDS + 1)).ready[0].settled


def test_a_file_that_is_open_for_writing_is_left_alone(spool: Spool) -> None:
    """A file that some process has open for writing is neither read, released nor moved until it is closed."""
    made = spool_segments(spool.folder, [1])
    file = found(spool, name_of(1))
    message = f"'{name_of(1)}' is still being written: a process has it open for writing"
    with spool.path(file).open("r+b"):
        for call in (lambda: spool.read(file), lambda: spool.release(file), lambda: spool.quarantine(file, now())):
            with pytest.raises(BeingWrittenError) as raised:
                call()
            assert raised.value.message == message
        assert not spool.has_no_writer(file)
    assert spool.path(file).exists()
    assert spool.has_no_writer(file)
    assert spool.read(file) == made[name_of(1)]
    assert spool.release(file)


def test_a_large_spool_is_listed_quickly(spool: Spool) -> None:
    """The listing opens no file: 10,000 files take less than a second of work."""
    for number in range(10_000):
        with (spool.folder / name_of(number)).open("wb") as file:
            file.truncate(SEGMENT_BYTES)
    begun = time.process_time()
    assert len(spool.scan(now()).ready) == 10_000
    assert time.process_time() - begun < 1


def test_reading_gives_the_bytes_that_were_listed(spool: Spool) -> None:
    """The bytes of the file as it was listed."""
    made = spool_segments(spool.folder, [1])
    assert spool.read(found(spool, name_of(1))) == made[name_of(1)]


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def shrink(path: Path) -> None:
    os.truncate(path, 100)


def rewrite(path: Path) -> None:
    path.write_bytes(segment_bytes(2))


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(segment_bytes(1))
    path.with_name("new").replace(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [grow, shrink, rewrite, replace, remove])
def test_a_file_that_changed_is_neither_read_released_nor_moved(spool: Spool, change: Callable[[Path], None]) -> None:
    """Another file under the name of a listed one stays for the next listing."""
    spool_segments(spool.folder, [1])
    file = found(spool, name_of(1))
    os.utime(spool.path(file), ns=(1, 1))  # so that a rewrite within one tick of the clock is a change
    file = found(spool, name_of(1))
    change(spool.path(file))
    assert spool.read(file) is None
    assert spool.release(file) is False
    assert spool.quarantine(file, now()) is None
    assert spool.path(file).exists() is (change is not remove)
    assert not list(spool.quarantine_folder.glob("*"))


def test_quarantine_keeps_every_file(spool: Spool) -> None:
    """Files of one name and moment get different names, in a folder that only its owner can read."""
    at = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    paths = []
    for variant in range(3):
        spool_segments(spool.folder, [1], variant=variant)
        paths.append(spool.quarantine(found(spool, name_of(1)), at))
    name = f"{name_of(1)}.20261122T120000.000000Z"
    assert [path.name for path in paths if path] == [name, f"{name}.1", f"{name}.2"]
    assert [path.read_bytes() for path in paths if path] == [segment_bytes(1, variant=variant) for variant in range(3)]
    assert stat.S_IMODE(spool.quarantine_folder.stat().st_mode) == 0o700


def test_quarantine_on_another_disk(tmp_path: Path, other_file_system: Path) -> None:
    """Where the folder is on another file system the file is copied whole before it leaves the spool."""
    spool = Spool(tmp_path, other_file_system / "quarantine", SETTLE_SECONDS)
    made = spool_segments(spool.folder, [1])
    path = spool.quarantine(found(spool, name_of(1)), now())
    assert path is not None
    assert path.read_bytes() == made[name_of(1)]
    assert [entry.name for entry in spool.quarantine_folder.iterdir()] == [path.name]
    assert spool.scan(now()).ready == ()


def test_a_missing_spool_is_named(tmp_path: Path) -> None:
    """Every method names the folder and a way out, and none takes the spool for empty."""
    spool = Spool(tmp_path / "none", tmp_path / "quarantine", SETTLE_SECONDS)
    for call in (lambda: spool.scan(now()), spool.changed_ns, spool.free_bytes):
        with pytest.raises(SpoolError) as raised:
            call()
        assert raised.value.message == f"spool '{tmp_path / 'none'}' cannot be read: No such file or directory"
        assert raised.value.hint is not None
        assert raised.value.hint.startswith("PG_WAL_ARCHIVE_DIR must name a folder that PostgreSQL writes")
    with pytest.raises(SpoolError, match="cannot be written: No such file or directory"), spool.lock():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_spool_without_rights(spool: Spool) -> None:
    """A folder that cannot be read or written is named, and nothing is lost."""
    spool_segments(spool.folder, [1])
    file = found(spool, name_of(1))
    spool.folder.chmod(0o500)
    with pytest.raises(SpoolError, match="cannot be removed: Permission denied"):
        spool.release(file)
    with pytest.raises(SpoolError, match="cannot be moved to quarantine"):
        spool.quarantine(file, now())
    spool.folder.chmod(0)
    with pytest.raises(SpoolError, match="cannot be read: Permission denied"):
        spool.scan(now())
    spool.folder.chmod(0o700)
    assert spool.read(file) == segment_bytes(1)


def test_a_change_of_the_folder_is_seen(spool: Spool) -> None:
    """A file that comes changes the folder's time."""
    os.utime(spool.folder, ns=(1, 1))
    before = spool.changed_ns()
    spool_segments(spool.folder, [1])
    assert spool.changed_ns() != before
