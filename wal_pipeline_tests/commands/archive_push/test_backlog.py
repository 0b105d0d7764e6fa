"""What waits in the spool: looked up in bulk, listed again only when that is worth it, and never twice."""

import time
from collections.abc import Collection

import pytest

from wal_pipeline.commands.archive_push.backlog import LOOK_UP_NAMES, Backlog, FileQueue, Recorded, look_up
from wal_pipeline_tests.support.archive_scene import ArchiveScene, fill
from wal_pipeline_tests.support.catalog_records import copy_of, segment
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, name_of, spool_segments


def test_ten_thousand_files_are_looked_up_in_bulk(scene: ArchiveScene) -> None:
    """A long outage's backlog is listed once, in archiving order, and costs a look-up for a thousand files."""
    fill(scene.spool_folder, 10_000)
    looked_up: list[int] = []

    def count(names: Collection[str]) -> dict[str, Recorded]:
        looked_up.append(len(names))
        return look_up(scene.catalog, names)

    files = FileQueue(count)
    listing = scene.spool.scan(scene.clock())
    files.fill(listing.ready)
    order = []
    while len(files):
        assert files.recorded() == Recorded()
        order.append(files.pop().name.name)
    assert order == [name_of(number) for number in range(1, 10_001)]
    assert looked_up == [LOOK_UP_NAMES] * 10


def test_new_names_are_told_once(scene: ArchiveScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing tells the names that it had not seen before; nothing new, nothing told."""
    monkeypatch.setattr("wal_pipeline.commands.archive_push.backlog._MIN_RESCAN_SECONDS", 0.0)
    monkeypatch.setattr("wal_pipeline.commands.archive_push.backlog._RESCAN_SHARE", 0)
    backlog = Backlog(scene.spool, scene.catalog, scene.clock)
    spool_segments(scene.spool_folder, [1, 2])
    assert backlog.refresh(()) == (name_of(1), name_of(2))
    backlog.mark_stale()
    assert backlog.refresh(()) == ()
    spool_segments(scene.spool_folder, [3])
    assert backlog.refresh({name_of(1)}) == (name_of(3),)
    assert [file.name.name for file in backlog.take_all()] == [name_of(2), name_of(3)]
    assert not backlog.is_unsure


def test_a_file_that_was_left_comes_back_when_it_changes(scene: ArchiveScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then it is not looked at again, and the spool is listed so as to see it."""
    monkeypatch.setattr("wal_pipeline.commands.archive_push.backlog._MIN_RESCAN_SECONDS", 0.0)
    monkeypatch.setattr("wal_pipeline.commands.archive_push.backlog._RESCAN_SHARE", 0)
    backlog = Backlog(scene.spool, scene.catalog, scene.clock)
    spool_segments(scene.spool_folder, [1])
    backlog.refresh(())
    backlog.leave(backlog.waiting.pop())
    backlog.refresh(())
    assert len(backlog.waiting) == 0
    with (scene.spool_folder / name_of(1)).open("ab") as file:
        file.write(bytes(SEGMENT_BYTES))
    backlog.refresh(())
    assert backlog.waiting.head.size_bytes == 2 * SEGMENT_BYTES


def test_a_file_that_was_left_for_a_while_comes_back_by_itself(
    scene: ArchiveScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a writer has closed a file is no change that could be seen: it is looked at again after the while."""
    monkeypatch.setattr("wal_pipeline.commands.archive_push.backlog._MIN_RESCAN_SECONDS", 0.0)
    monkeypatch.setattr("wal_pipeline.commands.archive_push.backlog._RESCAN_SHARE", 0)
    backlog = Backlog(scene.spool, scene.catalog, scene.clock)
    spool_segments(scene.spool_folder, [1])
    backlog.refresh(())
    backlog.leave(backlog.waiting.pop(), 0.3)
    backlog.refresh(())
    assert len(backlog.waiting) == 0
    time.sleep(0.4)
    backlog.refresh(())
    assert backlog.waiting.head.name.name == name_of(1)


def test_a_listing_is_not_repeated_at_once(scene: ArchiveScene) -> None:
    """However often it is asked, the spool is listed again only after a while."""
    backlog = Backlog(scene.spool, scene.catalog, scene.clock)
    backlog.refresh(())
    spool_segments(scene.spool_folder, [1])
    assert backlog.refresh(()) == ()


def test_whose_copies_count(scene: ArchiveScene) -> None:
    """The current cluster's, where it has a file of that name; else those of the one that has."""
    old, new = segment(1, system_identifier=1), segment(1, system_identifier=2)
    scene.catalog.files.record_verified(old, [copy_of(old, "r2"), copy_of(old, "b2")])
    only_old = look_up(scene.catalog, [old.name])[old.name]
    assert only_old.held_by(2) == {"r2", "b2"}
    assert only_old.verified(2) == {}
    scene.catalog.files.record_verified(new, [copy_of(new, "b2")])
    both = look_up(scene.catalog, [old.name])[old.name]
    assert both.held_by(2) == {"b2"}
    assert both.held_by(1) == {"r2", "b2"}
