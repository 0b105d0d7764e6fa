"""A file that a run had to leave starts no run by itself until something changes, however the run ended."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from wal_pipeline.commands.archive_push.pending import PendingWork, pending_work
from wal_pipeline.commands.archive_push.skipped_files import (
    SKIPPED_RETRY,
    STUCK_RETRY,
    SkippedFiles,
    SkippedRecord,
    skipped_names,
    stuck_files,
)
from wal_pipeline_tests.support.archive_scene import ArchiveScene, StubbornSpool
from wal_pipeline_tests.support.segments import OTHER_SYSTEM_IDENTIFIER, name_of, segment_bytes, spool_segments

STUCK = name_of(1)


def look(scene: ArchiveScene) -> PendingWork:
    return pending_work(scene.spool, scene.catalog, ("r2", "b2"), scene.clock())


@pytest.fixture
def stuck(scene: ArchiveScene) -> ArchiveScene:
    """A spool with one file that cannot be read, which a run has found out."""
    scene.spool = StubbornSpool(scene.spool_folder, scene.quarantine_folder, 60)
    scene.spool.unreadable = STUCK
    spool_segments(scene.spool_folder, [1])
    assert look(scene).is_due
    scene.run()
    return scene


def test_it_is_not_due_and_the_tick_says_so(stuck: ArchiveScene) -> None:
    """The sensor starts no run for it alone."""
    work = look(stuck)
    assert not work.is_due
    said = "1 files wait in the spool (1 MiB), 1 of them cannot be archived: 'wal-pipeline status' says why"
    assert work.describe() == said
    message = f"spool has '{STUCK}', which cannot be read: Input/output error"
    assert stuck_files(stuck.catalog) == {STUCK: message}


def test_new_files_are_due(stuck: ArchiveScene) -> None:
    """They are archived, and it is tried along with them."""
    made = spool_segments(stuck.spool_folder, [2])
    assert look(stuck).is_due
    stuck.run()
    assert stuck.verified("r2") == set(made)
    assert not look(stuck).is_due


def grow(scene: ArchiveScene) -> None:
    with (scene.spool_folder / STUCK).open("ab") as file:
        file.truncate(2**21)


def change_rights(scene: ArchiveScene) -> None:
    (scene.spool_folder / STUCK).chmod(0o640)


def replace(scene: ArchiveScene) -> None:
    path = scene.spool_folder / STUCK
    times = path.stat()
    copy = path.with_name(".copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    copy.replace(path)


def open_the_spool(scene: ArchiveScene) -> None:
    scene.spool_folder.chmod(0o770)


def make_the_quarantine(scene: ArchiveScene) -> None:
    scene.quarantine_folder.mkdir()


@pytest.mark.parametrize(
    "mend", [grow, change_rights, replace, open_the_spool, make_the_quarantine], ids=lambda mend: mend.__name__
)
def test_it_is_due_again_when_something_changed(stuck: ArchiveScene, mend: Callable[[ArchiveScene], None]) -> None:
    """The file itself, its rights, or those of the folders."""
    mend(stuck)
    assert look(stuck).is_due


def test_it_is_tried_again_each_hour(stuck: ArchiveScene) -> None:
    """What a disk or a mount did may be over without any change to the file; a clock set back holds nothing up."""
    stuck.ahead += STUCK_RETRY - timedelta(minutes=1)
    assert not look(stuck).is_due
    stuck.ahead += timedelta(minutes=1)
    assert look(stuck).is_due
    stuck.ahead -= timedelta(hours=5)
    assert look(stuck).is_due


def test_a_run_that_archives_it_forgets_it(stuck: ArchiveScene) -> None:
    """Nothing is kept of files that are over."""
    assert isinstance(stuck.spool, StubbornSpool)
    stuck.spool.unreadable = ""
    stuck.run()
    assert stuck.spooled() == []
    assert stuck_files(stuck.catalog) == {}
    assert stuck.catalog.values.get("spool.left") is None


def test_a_file_that_cannot_be_quarantined(scene: ArchiveScene) -> None:
    """It is left too: the folder has to be mended."""
    scene.quarantine_folder.write_text("not a folder")
    spool_segments(scene.spool_folder, [1], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    scene.run()
    assert not look(scene).is_due
    scene.quarantine_folder.unlink()
    assert look(scene).is_due


def test_a_file_of_an_unknown_cluster_waits_a_minute(scene: ArchiveScene) -> None:
    """A history file before the first segment: no person is needed, and no run each second."""
    scene.server_identifier = None
    (scene.spool_folder / "00000002.history").write_text("1\t0/2000000\tno recovery target specified\n")
    scene.run()
    assert not look(scene).is_due
    assert stuck_files(scene.catalog) == {}
    scene.ahead += SKIPPED_RETRY
    assert look(scene).is_due


def test_a_file_that_changed_while_it_was_looked_at_is_due(scene: ArchiveScene) -> None:
    """Before it was left, and after."""
    spool_segments(scene.spool_folder, [1, 2])
    first, second = scene.spool.scan(scene.clock()).ready
    left = SkippedFiles(scene.spool, scene.catalog, scene.clock)
    (scene.spool_folder / first.name.name).write_bytes(segment_bytes(3))
    for file in (first, second):
        left.add(file, "it cannot be read", needs_help=True)
    (scene.spool_folder / second.name.name).chmod(0o600)
    left.save()
    listed = scene.spool.scan(scene.clock()).ready
    assert skipped_names(scene.spool, scene.catalog, listed, scene.clock()) == frozenset()


def test_the_record_keeps_its_form(stuck: ArchiveScene) -> None:
    """An older program wrote what this one reads: the key and the names of its fields stay."""
    value = stuck.catalog.values.get("spool.left")
    status = (stuck.spool_folder / STUCK).lstat()
    mark = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    folder = stuck.spool_folder.stat()
    rights = [folder.st_dev, folder.st_ino, folder.st_mode, folder.st_uid, folder.st_gid]
    retry_at = value["files"][STUCK]["retry_at"]
    assert timedelta(0) < datetime.fromisoformat(retry_at) - stuck.clock() <= STUCK_RETRY
    message = f"spool has '{STUCK}', which cannot be read: Input/output error"
    file = {"mark": mark, "retry_at": retry_at, "message": message, "needs_help": True}
    assert value["files"] == {STUCK: file}
    assert value["folders"][0] == rights
    assert SkippedRecord.from_json(value).as_json() == value
