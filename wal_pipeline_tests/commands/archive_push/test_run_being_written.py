"""Tests that an archiving run leaves files that are still being written, whatever their size and the clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from wal_pipeline import spool as spool_module
from wal_pipeline.commands.archive_push.events import CopyVerified, FileQuarantined, FileReleased, FileSkipped
from wal_pipeline.commands.archive_push.pending import pending_work
from wal_pipeline.commands.archive_push.skipped_files import SKIPPED_RETRY
from wal_pipeline.host.open_writers import Writer
from wal_pipeline_tests.support.archive_scene import ArchiveScene, contents
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, history_bytes, name_of, segment_bytes, spool_segments

HALF = SEGMENT_BYTES // 2


@contextmanager
def half_written(path: Path, data: bytes, size: int) -> Iterator[BinaryIO]:
    """Write half of the bytes into a file of that size, and the rest at the end of the block."""
    with path.open("wb", buffering=0) as file:
        file.write(data[:HALF])
        file.truncate(size)
        yield file
        file.seek(HALF)
        file.write(data[HALF:])


@pytest.mark.parametrize("size", [SEGMENT_BYTES, HALF])
@pytest.mark.parametrize("settled", [False, True])
def test_a_file_with_a_writer_is_left(scene: ArchiveScene, size: int, settled: bool) -> None:
    """A copy with reserved space, or one that stalled, is neither archived nor quarantined; the others continue."""
    others = spool_segments(scene.spool_folder, [7])
    data = segment_bytes(1)
    scene.run()
    with half_written(scene.spool_folder / name_of(1), data, size):
        if settled:
            scene.settle()
        events = scene.run()
        seen = settled or size == SEGMENT_BYTES  # a file that is too short and too young is not even listed
        assert [event.needs_help for event in events if isinstance(event, FileSkipped)] == [False] * seen
        assert not any(isinstance(event, FileQuarantined | CopyVerified | FileReleased) for event in events)
        assert scene.spooled() == [name_of(1)]
    scene.run()
    assert scene.spooled() == scene.quarantined() == []
    assert all(contents(store) == {**others, name_of(1): data} for store in scene.stores.values())


def test_a_file_with_a_writer_starts_no_run_for_a_while(scene: ArchiveScene) -> None:
    """The end of a writer cannot be seen from outside, so the file is checked again after a minute."""
    with half_written(scene.spool_folder / name_of(1), segment_bytes(1), SEGMENT_BYTES):
        scene.server_identifier = None  # nor does it tell whose WAL it is
        [left] = [event for event in scene.run() if isinstance(event, FileSkipped)]
        assert left.message == "which cluster it belongs to is not known before the first segment"
        scene.identity().adopt(7_400_000_000_000_000_001, "a test")
        [left] = [event for event in scene.run() if isinstance(event, FileSkipped)]
        assert left.message == f"'{name_of(1)}' is still being written: a process has it open for writing"
        work = pending_work(scene.spool, scene.catalog, scene.stores, scene.clock())
        assert (work.is_due, work.left) == (False, 1)
        assert pending_work(scene.spool, scene.catalog, scene.stores, scene.clock() + SKIPPED_RETRY).is_due


def test_a_writer_that_comes_before_the_release_keeps_the_file(scene: ArchiveScene) -> None:
    """All stores have the read bytes. The file stays until its writer is gone, and is released if it is the same."""
    made = spool_segments(scene.spool_folder, [1])
    draining = scene.archiver().drain()
    copies = 0
    for event in draining:
        copies += isinstance(event, CopyVerified)
        if copies == 2:
            break
    with (scene.spool_folder / name_of(1)).open("r+b"):
        [left] = [event for event in draining if isinstance(event, FileSkipped)]
    assert left.message.startswith(f"'{name_of(1)}' is still being written")
    assert scene.spooled() == [name_of(1)]
    scene.run()
    assert scene.spooled() == []
    assert all(contents(store) == made for store in scene.stores.values())


@pytest.mark.parametrize("minutes", [2, -2])
def test_a_step_of_the_clock_makes_no_half_file_old(
    scene: ArchiveScene, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """Without the kernel's knowledge of writers, a copy in flight is still not taken for half a file."""
    monkeypatch.setattr(spool_module, "find_writer", lambda *_: Writer.UNKNOWN)
    made = spool_segments(scene.spool_folder, [1])
    scene.run()
    made[name_of(2)] = segment_bytes(2)
    with half_written(scene.spool_folder / name_of(2), made[name_of(2)], HALF):
        scene.run()
        scene.ahead += timedelta(minutes=minutes)
        scene.run()
        assert scene.spooled() == [name_of(2)]
    scene.run()
    assert scene.spooled() == scene.quarantined() == []
    assert all(contents(store) == made for store in scene.stores.values())


def test_zeros_at_the_end_wait_where_nobody_can_tell(scene: ArchiveScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pg_waldump and the kernel's knowledge, a segment that ends in zeros waits until it has settled."""
    data = segment_bytes(1)[:-8192] + bytes(8192)
    (scene.spool_folder / name_of(1)).write_bytes(data)
    (scene.spool_folder / "00000002.history").write_bytes(history_bytes([1]))
    with monkeypatch.context() as patched:
        patched.setattr(spool_module, "find_writer", lambda *_: Writer.UNKNOWN)
        [left] = [event for event in scene.run() if isinstance(event, FileSkipped)]
        assert left.message == f"'{name_of(1)}' ends in zeros, and whether it is still being written is not known"
        assert scene.spooled() == [name_of(1)]
        scene.settle()
        scene.run()
        assert scene.spooled() == []
    assert contents(scene.stores["r2"])[name_of(1)] == data


def test_zeros_at_the_end_do_not_wait_for_a_writer_that_is_gone(scene: ArchiveScene) -> None:
    """A segment that PostgreSQL switched away from is archived at once."""
    data = segment_bytes(1)[:-8192] + bytes(8192)
    (scene.spool_folder / name_of(1)).write_bytes(data)
    scene.run()
    assert contents(scene.stores["r2"]) == {name_of(1): data}
