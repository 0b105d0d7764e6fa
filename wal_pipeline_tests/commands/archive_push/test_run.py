"""Tests which files an archiving run stores, records and releases, and in which order."""

import os
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec, CopyStatus
from wal_pipeline.commands.archive_push.events import (
    CopyVerified,
    FileQuarantined,
    FileReleased,
    FileSkipped,
    FilesWaiting,
)
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline.errors import CatalogError, SpoolBusyError, SpoolError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline_tests.support.archive_scene import (
    PATIENCE_SECONDS,
    ArchiveScene,
    StubbornSpool,
    assert_archived,
    contents,
    names,
    one,
)
from wal_pipeline_tests.support.segments import (
    SYSTEM_IDENTIFIER,
    backup_history_bytes,
    history_bytes,
    name_of,
    segment_bytes,
    spool_segments,
)


def test_every_kind_of_file_is_archived(scene: ArchiveScene) -> None:
    """Segments, partial segments, timeline history and backup history files all reach every store."""
    made = spool_segments(scene.spool_folder, [1, 2, 3])
    made["00000002.history"] = history_bytes([1])
    made[f"{name_of(2)}.00000028.backup"] = backup_history_bytes(name_of(2), "0/200028")
    made[f"{name_of(4)}.partial"] = segment_bytes(4)
    for name, content in made.items():
        (scene.spool_folder / name).write_bytes(content)
    events = scene.run()
    assert_archived(scene, made)
    assert sorted(names(events, FileReleased)) == sorted(made)


def test_files_begin_in_archiving_order(scene: ArchiveScene) -> None:
    """Timeline history files go first, then segments by timeline and position; they may end in another order."""
    spool_segments(scene.spool_folder, [9, 3])
    spool_segments(scene.spool_folder, [4], timeline=2)
    (scene.spool_folder / "00000002.history").write_bytes(history_bytes([1]))
    scene.options = ArchiveOptions(concurrency=1)
    read: list[str] = []

    class WatchedSpool(Spool):
        def read(self, file: SpoolFile) -> bytes | None:
            read.append(file.name.name)
            return super().read(file)

    scene.spool = scene.open_spool(WatchedSpool)
    events = scene.run()
    order = ["00000002.history", name_of(3), name_of(9), name_of(4, timeline=2)]
    assert one(events, FilesWaiting).names == tuple(order)
    assert read == order
    assert sorted(names(events, FileReleased)) == sorted(order)
    assert sorted(Path(key).name for key in scene.stores["r2"].created) == sorted(f"{name}.zst" for name in order)


def test_each_step_is_recorded(scene: ArchiveScene) -> None:
    """A copy's record has its key, digests, times and tries; the event has the seconds of each step."""
    spool_segments(scene.spool_folder, [5])
    events = scene.run()
    copies = {copy.store: copy for copy in scene.catalog.files.copies()}
    assert copies.keys() == {"r2", "b2"}
    for copy in copies.values():
        assert copy.object_key == f"main/{SYSTEM_IDENTIFIER}/wal/00000001/0000000100000000/{name_of(5)}.zst"
        assert copy.status is CopyStatus.VERIFIED
        assert (copy.tries, copy.last_error) == (1, None)
        assert copy.lag_seconds is not None
        assert copy.encoding is not None
    assert one(events, FileReleased).seconds.keys() == {"checksum", "compress", "store on r2", "store on b2"}
    assert scene.catalog.stores.states()["r2"].consecutive_failures == 0 if scene.catalog.stores.states() else True


def test_a_file_is_told_before_it_is_removed(scene: ArchiveScene) -> None:
    """A caller that stops at the last copy's event finds the file still in the spool; the next run releases it."""
    made = spool_segments(scene.spool_folder, [1])
    told = 0
    draining = scene.archiver().drain()
    for event in draining:
        told += isinstance(event, CopyVerified)
        if told == 2:
            break
    draining.close()  # type: ignore[attr-defined]
    assert scene.spooled() == [name_of(1)]
    events = scene.run()
    assert [event.is_new for event in events if isinstance(event, CopyVerified)] == [False, False]
    assert_archived(scene, made)


def test_stop_takes_no_new_file(scene: ArchiveScene) -> None:
    """A run that is told to stop finishes its begun files and leaves the rest."""
    spool_segments(scene.spool_folder, range(1, 4))
    assert list(scene.archiver().drain(lambda: True)) == []
    assert len(scene.spooled()) == 3


def test_a_run_lingers_for_new_files(scene: ArchiveScene) -> None:
    """Files that come while a run lingers are archived by it."""
    made = spool_segments(scene.spool_folder, [1])
    scene.options = ArchiveOptions(linger_seconds=PATIENCE_SECONDS)
    draining = scene.archiver().drain(lambda: not scene.spooled() and len(made) == 2)
    for event in draining:
        if isinstance(event, FileReleased) and len(made) == 1:
            made |= spool_segments(scene.spool_folder, [2])
    assert_archived(scene, made)


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.GZIP, Codec.NONE])
def test_a_lost_catalog_stores_nothing_twice(scene: ArchiveScene, codec: Codec) -> None:
    """Existing copies, in this encoding or another, are verified and adopted."""
    made = spool_segments(scene.spool_folder, [1, 2])
    scene.run()
    scene.lose_catalog()
    scene.codec = codec
    spool_segments(scene.spool_folder, [1, 2])
    events = scene.run()
    assert_archived(scene, made)
    assert {copy.encoding.codec for copy in scene.catalog.files.copies() if copy.encoding} == {Codec.ZSTD}
    assert len([event for event in events if isinstance(event, CopyVerified) and event.is_new]) == 4


def test_a_file_that_comes_again_is_not_stored_again(scene: ArchiveScene) -> None:
    """PostgreSQL may archive a file twice. The second one is released when both stores confirm their copy."""
    made = spool_segments(scene.spool_folder, [1])
    scene.run()
    for store in scene.stores.values():
        store.calls.clear()
    spool_segments(scene.spool_folder, [1])
    scene.run()
    assert [store.calls for store in scene.stores.values()] == [
        [("head", store.created[0])] for store in scene.stores.values()
    ]
    assert_archived(scene, made)


def test_what_is_not_a_plain_file_of_postgresql(scene: ArchiveScene, tmp_path: Path) -> None:
    """Links, folders, pipes and foreign or temporary names are neither read, uploaded nor removed."""
    (tmp_path / "outside").write_bytes(segment_bytes(1))
    (scene.spool_folder / name_of(1)).symlink_to(tmp_path / "outside")
    (scene.spool_folder / name_of(2)).mkdir()
    os.mkfifo(scene.spool_folder / name_of(3))
    for name in ("archtemp.x.1.2", ".hidden", f".{name_of(4)}", f"{name_of(4)}.tmp", "notes", name_of(10).lower()):
        (scene.spool_folder / name).write_bytes(segment_bytes(4))
    before = scene.spooled()
    scene.settle()
    assert scene.run() == []
    assert scene.spooled() == before
    assert all(store.created == [] for store in scene.stores.values())


def test_a_file_that_is_being_copied_is_never_taken_half(scene: ArchiveScene) -> None:
    """Plain ``cp`` into the spool is safe: a writer that appends slowly ends with the whole file on every store."""
    whole = segment_bytes(1, size=4 << 20)
    name = name_of(1, size=4 << 20)
    scene.options = ArchiveOptions(linger_seconds=PATIENCE_SECONDS)
    begun, seen_half = threading.Event(), threading.Event()

    def write() -> None:
        with (scene.spool_folder / name).open("wb", buffering=0) as file:
            for start in range(0, len(whole), 1 << 20):  # 1, 2 and 4 MiB could each be a whole segment's size
                file.write(whole[start : start + (1 << 20)])
                begun.set()
                if start == 1 << 20:
                    seen_half.wait(PATIENCE_SECONDS)

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait(PATIENCE_SECONDS)
    released: list[str] = []
    for event in scene.archiver().drain(lambda: bool(released)):
        if isinstance(event, FileSkipped):
            seen_half.set()
        if isinstance(event, FileReleased):
            released.append(event.file.name)
    writer.join()
    assert_archived(scene, {name: whole})


@pytest.mark.parametrize("variant", [0, 1])
def test_a_file_that_is_replaced_before_its_release_stays(scene: ArchiveScene, variant: int) -> None:
    """Only the file that was read is removed, and the next run archives the new one."""
    made = spool_segments(scene.spool_folder, [1])
    path = scene.spool_folder / name_of(1)
    replaced: list[str] = []

    def replace_file(call: str, _key: str) -> None:
        if call == "open" and not replaced:
            replaced.append(call)
            temporary = scene.folder / "new"
            temporary.write_bytes(segment_bytes(1, variant=variant))
            temporary.replace(path)

    scene.stores["r2"].before = replace_file
    events = scene.run() + scene.run()
    assert contents(scene.stores["r2"]) == contents(scene.stores["b2"]) == made
    if variant == 0:
        assert names(events, FileReleased) == [name_of(1)]
    else:
        assert one(events, FileQuarantined).path.read_bytes() == segment_bytes(1, variant=1)
    assert scene.spooled() == []


@pytest.mark.parametrize("trouble", ["unreadable", "unremovable"])
def test_one_file_that_resists_does_not_stop_the_others(scene: ArchiveScene, trouble: str) -> None:
    """The file stays and is reported; every other file is archived and released."""
    made = spool_segments(scene.spool_folder, range(1, 6))
    scene.spool = StubbornSpool(scene.spool_folder, scene.quarantine_folder, 60)
    setattr(scene.spool, trouble, name_of(1))
    left = one(scene.run(), FileSkipped)
    assert (left.name, left.needs_help) == (name_of(1), True)
    assert left.message.startswith(f"spool has '{name_of(1)}', which cannot be ")
    assert scene.spooled() == [name_of(1)]
    setattr(scene.spool, trouble, "")
    scene.run()
    assert_archived(scene, made)


def test_a_missing_spool_is_an_error(scene: ArchiveScene) -> None:
    """A missing spool is never taken for an empty one."""
    scene.spool_folder.rmdir()
    with pytest.raises(SpoolError) as raised:
        scene.run()
    assert raised.value.message == f"spool '{scene.spool_folder}' cannot be written: No such file or directory"
    assert raised.value.hint is not None


def test_a_second_archiver_is_refused(scene: ArchiveScene) -> None:
    """While one run archives from a spool, another one ends at once and touches nothing."""
    made = spool_segments(scene.spool_folder, [1, 2])
    first = scene.archiver().drain()
    next(first)
    second = Spool(scene.spool_folder, scene.quarantine_folder, 60)
    assert second.busy()
    with pytest.raises(SpoolBusyError, match="is being archived by another process"):
        scene.run()
    list(first)
    assert not second.busy()
    assert_archived(scene, made)


def test_a_catalog_that_breaks_in_mid_run(scene: ArchiveScene) -> None:
    """The run ends with the error and releases no unrecorded file; a new catalog adopts the stored copies."""
    made = spool_segments(scene.spool_folder, range(1, 6))
    once = threading.Lock()

    def break_catalog(call: str, _key: str) -> None:
        if call == "open" and once.acquire(blocking=False):
            with sqlite3.connect(scene.folder / "catalog.sqlite", timeout=30) as connection:
                connection.execute("DROP TABLE wal_copies")

    scene.stores["r2"].before = break_catalog
    with pytest.raises(CatalogError, match="no such table: wal_copies"):
        scene.run()
    for name in set(made) - set(scene.spooled()):
        assert name in contents(scene.stores["r2"]) and name in contents(scene.stores["b2"])
    scene.lose_catalog()
    scene.run()
    assert scene.spooled() == []
    assert contents(scene.stores["r2"]) == contents(scene.stores["b2"]) == made
    assert all(max(Counter(store.created).values()) == 1 for store in scene.stores.values())
