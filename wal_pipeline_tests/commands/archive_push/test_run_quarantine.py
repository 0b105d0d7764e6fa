"""Tests which files an archiving run moves to quarantine, and which it leaves in the spool."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.commands.archive_push.events import FileQuarantined, FileSkipped, QuarantineReason
from wal_pipeline.errors import StoreError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline_tests.support.archive_scene import (
    PATIENCE_SECONDS,
    ArchiveScene,
    assert_archived,
    contents,
    fail,
    nothing,
    one,
)
from wal_pipeline_tests.support.segments import (
    OTHER_SYSTEM_IDENTIFIER,
    SEGMENT_BYTES,
    SYSTEM_IDENTIFIER,
    backup_history_bytes,
    history_bytes,
    name_of,
    segment_bytes,
    spool_segments,
)


@pytest.mark.parametrize("catalog_lost", [False, True])
def test_same_name_other_content_is_quarantined(scene: ArchiveScene, catalog_lost: bool) -> None:
    """The stored copy stays, and the new file is moved to quarantine, also where only the stores know the name."""
    made = spool_segments(scene.spool_folder, [1])
    scene.run()
    if catalog_lost:
        scene.lose_catalog()
    other = spool_segments(scene.spool_folder, [1], variant=1)[name_of(1)]
    event = one(scene.run(), FileQuarantined)
    assert event.reason is QuarantineReason.OTHER_CONTENT
    assert event.path.read_bytes() == other
    assert event.path.parent == scene.quarantine_folder
    assert scene.spooled() == []
    for store in scene.stores.values():
        assert contents(store) == made
        assert len(store.created) == 1


def test_other_content_on_one_store_only(scene: ArchiveScene) -> None:
    """A conflict on one store loses neither content: the other store gets the new file, which is also quarantined."""
    old = spool_segments(scene.spool_folder, [1])
    scene.stores["b2"].before = fail("b2")
    scene.run()
    scene.lose_catalog()
    scene.stores["b2"].before = nothing
    new = spool_segments(scene.spool_folder, [1], variant=1)
    event = one(scene.run(), FileQuarantined)
    assert event.message.startswith(
        f"r2: object 'main/{SYSTEM_IDENTIFIER}/wal/00000001/0000000100000000/{name_of(1)}.zst'"
    )
    assert event.path.read_bytes() == new[name_of(1)]
    assert contents(scene.stores["r2"]) == old
    assert contents(scene.stores["b2"]) == new
    assert scene.catalog.files.copies() == []
    assert scene.catalog.files.files() == []


@pytest.mark.parametrize("first", ["r2", "b2"])
def test_a_copy_beside_a_conflict_is_not_recorded(scene: ArchiveScene, first: str) -> None:
    """In any order of answers, the copy on the other store does not count as the file's verified content."""
    old = spool_segments(scene.spool_folder, [1])
    scene.stores["b2"].before = fail("b2")
    scene.run()
    scene.lose_catalog()
    scene.stores["b2"].before = nothing
    spool_segments(scene.spool_folder, [1], variant=1)
    second = scene.stores["b2" if first == "r2" else "r2"]
    answered = threading.Event()

    def wait(_call: str, _key: str) -> None:
        answered.wait(PATIENCE_SECONDS)

    second.before = wait
    draining = scene.archiver().drain()
    threading.Timer(0.5, answered.set).start()  # the first one has answered by then
    list(draining)
    assert contents(scene.stores["r2"]) == old
    assert scene.quarantined()
    assert scene.catalog.files.copies() == []


def test_tries_of_a_file_in_quarantine_are_forgotten(scene: ArchiveScene) -> None:
    """The failed copies of a file in quarantine are no longer missed."""
    made = spool_segments(scene.spool_folder, [1])

    def refuse(call: str, key: str) -> None:
        if call == "put" and name_of(2) in key:
            raise StoreError("r2", "refused")

    scene.stores["r2"].before = refuse
    scene.stores["b2"].before = fail("b2")
    spool_segments(scene.spool_folder, [2])
    for _ in range(4):  # in the first run one file's failure may cancel the other's try
        scene.run()
        scene.settle()
    assert {failed.name for failed in scene.catalog.measures.failed_copies(3, 20)} == {name_of(1), name_of(2)}
    (scene.spool_folder / name_of(2)).write_bytes(segment_bytes(3))
    scene.stores["r2"].before = scene.stores["b2"].before = nothing
    events = scene.run()
    scene.settle()
    assert one([*events, *scene.run()], FileQuarantined).reason is QuarantineReason.NOT_VALID
    assert scene.catalog.measures.failed_copies(1, 20) == []
    assert_archived(scene, made)
    assert [file.name for file in scene.catalog.files.files()] == [name_of(1)]


def test_half_a_file_is_left_while_it_may_grow(scene: ArchiveScene) -> None:
    """Half a segment stays until it has settled. Then it is quarantined, and was never uploaded."""
    half = segment_bytes(1)[: SEGMENT_BYTES // 3]
    (scene.spool_folder / name_of(1)).write_bytes(half)
    assert scene.run() == []
    assert scene.spooled() == [name_of(1)]
    scene.settle()
    event = one(scene.run(), FileQuarantined)
    assert event.reason is QuarantineReason.NOT_WHOLE
    assert event.message == f"'{name_of(1)}' has {len(half)} bytes, expected the segment size {SEGMENT_BYTES}"
    assert event.path.read_bytes() == half
    assert all(store.created == [] for store in scene.stores.values())


def not_whole_power_of_two() -> tuple[str, bytes]:
    return name_of(1, size=4 << 20), segment_bytes(1, size=4 << 20)[: 2 << 20]


def zeros() -> tuple[str, bytes]:
    return name_of(1), bytes(SEGMENT_BYTES)


def renamed() -> tuple[str, bytes]:
    return name_of(2), segment_bytes(1)


def wrong_timeline() -> tuple[str, bytes]:
    return name_of(1), segment_bytes(1, timeline=2)


def cut_history() -> tuple[str, bytes]:
    return "00000003.history", history_bytes([1, 2])[:-40]


def cut_backup_history() -> tuple[str, bytes]:
    return f"{name_of(2)}.00000028.backup", backup_history_bytes(name_of(2), "0/200028")[:50]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (not_whole_power_of_two, QuarantineReason.NOT_WHOLE),
        (zeros, QuarantineReason.NOT_WHOLE),
        (renamed, QuarantineReason.NOT_VALID),
        (wrong_timeline, QuarantineReason.NOT_VALID),
        (cut_history, QuarantineReason.NOT_VALID),
        (cut_backup_history, QuarantineReason.NOT_VALID),
    ],
)
def test_a_file_that_is_not_what_its_name_says(
    scene: ArchiveScene, make: Callable[[], tuple[str, bytes]], reason: QuarantineReason
) -> None:
    """Such a file stays while it may still be written, then is quarantined; the other files are archived at once."""
    name, content = make()
    (scene.spool_folder / name).write_bytes(content)
    made = spool_segments(scene.spool_folder, [7])
    left = one(scene.run(), FileSkipped)
    assert (left.name, left.needs_help) == (name, False)
    assert scene.spooled() == [name]
    scene.settle()
    event = one(scene.run(), FileQuarantined)
    assert (event.name, event.reason, event.message) == (name, reason, left.message)
    assert event.path.read_bytes() == content
    assert_archived(scene, made)


def test_half_a_file_that_goes_on_growing_is_not_quarantined(scene: ArchiveScene) -> None:
    """A copy that stalled until it had settled, and then continued, stays where its writer expects it."""
    path = scene.spool_folder / name_of(1)
    path.write_bytes(segment_bytes(1)[:5000])

    class GrowsWhenRead(Spool):
        def quarantine(self, file: SpoolFile, now: Any) -> Path | None:
            path.write_bytes(segment_bytes(1))
            return super().quarantine(file, now)

    scene.spool = scene.open_spool(GrowsWhenRead)
    assert scene.run() == []
    scene.settle()
    left = one(scene.run(), FileSkipped)
    assert left.message.endswith("; it has changed since, and is looked at again")
    assert scene.quarantined() == []
    scene.run()
    assert_archived(scene, {name_of(1): segment_bytes(1)})


def test_a_quarantine_that_cannot_be_written(scene: ArchiveScene) -> None:
    """The file stays in the spool and is reported, and the others are archived."""
    scene.quarantine_folder.write_text("not a folder")
    made = spool_segments(scene.spool_folder, [2])
    spool_segments(scene.spool_folder, [1], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    left = one(scene.run(), FileSkipped)
    assert left.needs_help
    assert left.message.endswith(
        f"'{name_of(1)}' cannot be moved to quarantine in '{scene.quarantine_folder}': File exists"
    )
    assert scene.spooled() == [name_of(1)]
    assert contents(scene.stores["r2"]) == made
