"""The prefetcher runs ahead of replay within its bounds, follows it, and goes when nobody takes anything."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wal_pipeline.commands.archive_get.prefetch_folder import Position, PrefetchFolder
from wal_pipeline.commands.archive_get.prefetcher import Prefetcher, PrefetchLimits
from wal_pipeline.commands.archive_get.wal_source import FetchedWal
from wal_pipeline.errors import RestoreError, StoreUnavailableError
from wal_pipeline.wal.names import WalFileName, segment_name
from wal_pipeline_tests.support.restore_archive import SEGMENT_SIZE, name_of

LIMITS = PrefetchLimits(files=4, workers=2, idle_seconds=0.5)


def name(number: int, timeline: int = 1) -> str:
    """Return a segment's name."""
    return segment_name(timeline, number, SEGMENT_SIZE).name


class Archive:
    """Segments up to a number; notes what was asked and how many at once."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.asked: list[str] = []
        self.most_at_once = 0
        self.down = False
        self._now = 0
        self._lock = threading.Lock()

    def fetch(self, wanted: WalFileName) -> FetchedWal | None:
        """Return a segment's bytes."""
        with self._lock:
            self.asked.append(wanted.name)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(0.01)
        with self._lock:
            self._now -= 1
        if self.down:
            raise StoreUnavailableError("r2", "no answer")
        if wanted.number(SEGMENT_SIZE) > self.last:
            return None
        return FetchedWal(wanted, wanted.name.encode(), "r2", "key")


@pytest.fixture
def folder(tmp_path: Path) -> PrefetchFolder:
    """A folder in which replay has just been given segment 1."""
    made = PrefetchFolder(tmp_path / "ahead")
    made.write_position(Position(name_of(name(1)), SEGMENT_SIZE))
    return made


@contextmanager
def running(folder: PrefetchFolder, archive: Archive, limits: PrefetchLimits = LIMITS) -> Iterator[threading.Thread]:
    """Run a prefetcher in a thread until it goes by itself."""
    thread = threading.Thread(target=Prefetcher(folder, archive.fetch, limits).run)
    thread.start()
    yield thread
    thread.join(20)
    assert not thread.is_alive()


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so. Raises: AssertionError."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_runs_ahead_follows_and_goes(folder: PrefetchFolder, tmp_path: Path) -> None:
    """Four files lie ahead at most; each one taken makes room for the next; idle, it leaves nothing behind."""
    archive = Archive(last=100)
    with running(folder, archive):
        for number in range(2, 12):
            eventually(lambda number=number: folder.take(name_of(name(number)), tmp_path / "out"))  # type: ignore[misc]
            assert (tmp_path / "out").read_text() == name(number)
            assert len(folder.ready()) <= 4
        eventually(lambda: folder.ready() == {name(number) for number in range(12, 16)})
    assert sorted(path.name for path in folder.path.iterdir()) == ["lock", "position"]
    assert len(archive.asked) == len(set(archive.asked))
    assert archive.most_at_once <= 2


def test_another_position_drops_what_is_not_ahead_of_it(folder: PrefetchFolder) -> None:
    """After a timeline switch the files of the old timeline go, and the new one's come."""
    archive = Archive(last=100)
    with running(folder, archive):
        eventually(lambda: len(folder.ready()) == 4)
        folder.write_position(Position(name_of(name(3, timeline=2)), SEGMENT_SIZE))
        eventually(lambda: folder.ready() == {name(number, timeline=2) for number in range(4, 8)})


def test_at_the_end_of_the_archive_it_asks_little(folder: PrefetchFolder) -> None:
    """An absent segment is asked for again once a second at first, not in a loop, and delivered when it comes."""
    archive = Archive(last=1)
    with running(folder, archive, PrefetchLimits(files=4, workers=2, idle_seconds=3)):
        time.sleep(0.5)
        assert len(archive.asked) <= 2
        archive.last = 2
        eventually(lambda: name(2) in folder.ready())


def test_a_dead_store_does_not_end_it(folder: PrefetchFolder) -> None:
    """A failure is left to the program to tell; the prefetcher tries again."""
    archive = Archive(last=100)
    archive.down = True
    with running(folder, archive, PrefetchLimits(files=4, workers=2, idle_seconds=3)):
        eventually(lambda: len(archive.asked) > 0)
        archive.down = False
        eventually(lambda: name(2) in folder.ready())


def test_a_file_that_is_fetched_for_somebody_is_left_to_him(folder: PrefetchFolder) -> None:
    """The stores are asked once; the next files are fetched meanwhile, and this one when nobody waits any more."""
    archive, asked = Archive(last=100), {name(2)}
    prefetcher = Prefetcher(folder, archive.fetch, LIMITS)
    thread = threading.Thread(target=lambda: prefetcher.run(is_asked=asked.__contains__))
    thread.start()
    eventually(lambda: folder.ready() == {name(number) for number in (3, 4, 5)})
    assert name(2) not in archive.asked
    assert not folder.mark(name(2)).exists()
    asked.clear()
    eventually(lambda: name(2) in folder.ready())
    thread.join(20)
    assert not thread.is_alive()


def test_one_works_in_a_folder(folder: PrefetchFolder) -> None:
    """A second prefetcher goes at once, and touches nothing."""
    archive = Archive(last=100)
    with running(folder, archive):
        eventually(lambda: len(folder.ready()) == 4)
        assert Prefetcher(folder, archive.fetch, LIMITS).run() is False
        assert len(folder.ready()) == 4


def test_leftovers_of_a_killed_prefetcher_are_removed(folder: PrefetchFolder) -> None:
    """What lies there before the start is not trusted."""
    (folder.path / name(2)).write_text("left over")
    (folder.path / f".{name(3)}.loading").touch()
    archive = Archive(last=100)
    with running(folder, archive):
        eventually(lambda: (folder.path / name(2)).exists() and (folder.path / name(2)).read_text() == name(2))


def test_the_bounds_are_bytes_too() -> None:
    """With 64 MiB segments and 200 MiB allowed, three files lie ahead; a segment that does not fit is not fetched."""
    limits = PrefetchLimits(files=12, size_bytes=200 << 20)
    assert (limits.window(16 << 20), limits.window(64 << 20), limits.window(1 << 30)) == (12, 3, 0)


def test_a_file_is_taken_across_file_systems(
    folder: PrefetchFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a rename cannot be, the file is copied durably and removed."""

    def refuse(self: Path, target: Path) -> Path:
        if self.name == name(2):
            raise OSError(18, "Invalid cross-device link")
        return Path(self.rename(target))

    (folder.path / name(2)).write_text("wal")
    monkeypatch.setattr(Path, "replace", refuse)
    assert folder.take(name_of(name(2)), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "wal"
    assert not (folder.path / name(2)).exists()


@pytest.mark.parametrize("wrong", ["owner", "mode", "link", "parent"])
def test_a_folder_of_another_is_refused(tmp_path: Path, wrong: str) -> None:
    """Who can write there chooses what is replayed."""
    folder = PrefetchFolder(tmp_path / "root" / "folder")
    folder.check(os.geteuid())  # nothing there
    folder.make()
    uid = os.geteuid()
    if wrong == "owner":
        uid += 1
        (tmp_path / "root").chmod(0o1777)
        if os.geteuid() == 0:
            os.chown(folder.path, 4711, 4711)
    elif wrong == "mode":
        folder.path.chmod(0o770)
    elif wrong == "parent":
        (tmp_path / "root").chmod(0o777)
    else:
        folder.path.rename(tmp_path / "elsewhere")
        folder.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RestoreError, match="is not the recovery's alone"):
        folder.check(uid)
    if uid == os.geteuid():
        with pytest.raises(RestoreError, match="is not the recovery's alone"):
            folder.make()
