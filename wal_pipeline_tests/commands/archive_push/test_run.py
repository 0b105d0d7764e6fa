"""An archiving run over a spool: what is stored, kept and quarantined, and what one store's trouble does."""

import os
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.archive.records import Codec, CopyStatus
from wal_pipeline.commands.archive_push.events import (
    ArchiveEvent,
    CopyFailed,
    CopyVerified,
    FileQuarantined,
    FileReleased,
    FileSkipped,
    FilesWaiting,
    QuarantineReason,
)
from wal_pipeline.commands.archive_push.run import ArchiveOptions
from wal_pipeline.errors import CatalogError, SpoolBusyError, SpoolError, StoreError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline_tests.support.archive_scene import ArchiveScene, StubbornSpool, WatchedStore, contents, fail, nothing
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

PATIENCE_SECONDS = 30


def names(events: Iterable[ArchiveEvent], kind: type) -> list[str]:
    """Return the files that events of one kind are about."""
    return [event.file.name if hasattr(event, "file") else event.name for event in events if isinstance(event, kind)]  # type: ignore[union-attr]


def one(events: Iterable[ArchiveEvent], kind: type) -> Any:
    """Return the one event of a kind."""
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def assert_archived(scene: ArchiveScene, made: dict[str, bytes]) -> None:
    """Both stores hold exactly these files, once each, and the spool is empty."""
    assert scene.spooled() == []
    for name, store in scene.stores.items():
        assert contents(store) == made
        assert scene.verified(name) == set(made)
        assert max(Counter(store.created).values()) == 1


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
    """A run that is told to stop finishes what it has begun and leaves the rest."""
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
    """Copies that are there, in this encoding or another, are verified and adopted."""
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
    """PostgreSQL may archive a file twice: the second one is released once both stores say that they have it."""
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


@pytest.mark.parametrize("catalog_lost", [False, True])
def test_same_name_other_content_is_quarantined(scene: ArchiveScene, catalog_lost: bool) -> None:
    """What is stored stays, the new file is kept beside the spool, whether the catalog or only the stores know."""
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
    """A conflict on one store loses neither content: the other store gets the file, and it is quarantined too."""
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
    """Whichever store answers first: what the other one just took does not count as the file's verified content."""
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
    if first == "r2":
        threading.Timer(0.5, answered.set).start()
    for event in draining:
        if isinstance(event, CopyVerified):
            answered.set()
    assert contents(scene.stores["r2"]) == old
    assert scene.quarantined()
    assert scene.catalog.files.copies() == []


def test_tries_of_a_file_in_quarantine_are_forgotten(scene: ArchiveScene) -> None:
    """A copy that failed again and again is no longer missed once its file may not be archived."""
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
    """Half a segment is not touched until it has settled; then it is quarantined, and was never uploaded."""
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
    """It is left while it may still be written, then quarantined; the files around it are archived at once."""
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


def test_another_clusters_file(scene: ArchiveScene) -> None:
    """A segment of another cluster is quarantined at once, however young, and nothing of it is uploaded."""
    made = spool_segments(scene.spool_folder, [1, 3])
    other = spool_segments(scene.spool_folder, [2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    event = one(scene.run(), FileQuarantined)
    assert event.reason is QuarantineReason.WRONG_CLUSTER
    assert event.message == (
        f"'{name_of(2)}' is of the cluster with system identifier {OTHER_SYSTEM_IDENTIFIER}, "
        f"expected {SYSTEM_IDENTIFIER}"
    )
    assert event.path.read_bytes() == other[name_of(2)]
    assert_archived(scene, made)


def test_another_clusters_file_while_the_server_is_down(scene: ArchiveScene) -> None:
    """It may be the upgraded cluster's own: it stays and is told, and goes its way once the server answers."""
    made = spool_segments(scene.spool_folder, [1])
    scene.run()
    scene.server_identifier = None
    made |= spool_segments(scene.spool_folder, [2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    left = one(scene.run(), FileSkipped)
    assert left.needs_help
    assert left.message == (
        f"'{name_of(2)}' is of the cluster with system identifier {OTHER_SYSTEM_IDENTIFIER}, "
        f"expected {SYSTEM_IDENTIFIER}; the server does not answer, and may have a new one"
    )
    assert (scene.spooled(), scene.quarantined()) == ([name_of(2)], [])
    scene.server_identifier = OTHER_SYSTEM_IDENTIFIER
    scene.run()
    assert_archived(scene, made)


def test_an_upgraded_cluster_goes_on_under_its_name(scene: ArchiveScene) -> None:
    """The server's new system identifier is accepted in the middle of a run, and so is WAL of the old one."""
    made = spool_segments(scene.spool_folder, [1])
    draining = scene.archiver().drain()
    assert isinstance(next(draining), FilesWaiting)
    scene.server_identifier = OTHER_SYSTEM_IDENTIFIER
    made |= spool_segments(scene.spool_folder, [2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    events = [*draining, *scene.run()]
    assert names(events, FileQuarantined) == []
    assert_archived(scene, made)


def test_a_new_cluster_may_use_the_old_ones_names(scene: ArchiveScene) -> None:
    """A cluster made again under the same name archives beside the old one, though the names are recorded already."""
    spool_segments(scene.spool_folder, [1, 2])
    scene.run()
    scene.server_identifier = OTHER_SYSTEM_IDENTIFIER
    new = spool_segments(scene.spool_folder, [1, 2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    assert sorted(names(scene.run(), FileReleased)) == sorted(new)
    assert scene.spooled() == []
    assert len(scene.stores["r2"].created) == len(scene.stores["b2"].created) == 4
    assert {identifier for identifier, _ in scene.catalog.files.names_on("b2")} == {
        SYSTEM_IDENTIFIER,
        OTHER_SYSTEM_IDENTIFIER,
    }


def test_the_first_segment_tells_the_cluster(scene: ArchiveScene) -> None:
    """Without a server, files that do not name their cluster wait for the first whole segment."""
    scene.server_identifier = None
    (scene.spool_folder / "00000002.history").write_bytes(history_bytes([1]))
    left = one(scene.run(), FileSkipped)
    assert left.message == "which cluster it belongs to is not known before the first segment"
    made = spool_segments(scene.spool_folder, [1]) | {"00000002.history": history_bytes([1])}
    scene.run()
    assert_archived(scene, made)
    assert scene.catalog.system_identifiers.known() == [SYSTEM_IDENTIFIER]


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
    """Only the very file that was read is removed; the new one is looked at in its turn."""
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


def test_half_a_file_that_goes_on_growing_is_not_quarantined(scene: ArchiveScene) -> None:
    """A copy that stalled longer than it takes to settle and then went on stays where its writer expects it."""
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


def test_a_store_that_is_down_holds_nothing_up(scene: ArchiveScene) -> None:
    """With r2 down b2 gets everything and the spool keeps everything; r2 rests, then catches up by itself."""
    made = spool_segments(scene.spool_folder, range(1, 13))
    scene.stores["r2"].before = fail("r2")
    events = scene.run()
    assert contents(scene.stores["b2"]) == made
    assert scene.spooled() == sorted(made)
    failures = [event for event in events if isinstance(event, CopyFailed)]
    assert {(event.store, event.message) for event in failures} == {("r2", "r2: cannot list: it is down")}
    state = scene.catalog.stores.states()["r2"]
    assert (state.consecutive_failures, state.last_error) == (1, "r2: cannot list: it is down")
    assert state.retry_at is not None
    failed = [copy for copy in scene.catalog.files.copies() if copy.store == "r2"]
    assert {copy.name for copy in failed} == {event.name for event in failures}
    assert {(copy.status, copy.tries, copy.last_error) for copy in failed} == {
        (CopyStatus.FAILED, 1, "r2: cannot list: it is down")
    }

    scene.stores["r2"].calls.clear()
    assert names(scene.run(), CopyFailed) == []
    assert scene.stores["r2"].calls == []

    scene.stores["r2"].before = nothing
    scene.settle()
    scene.run()
    assert_archived(scene, made)
    assert len(scene.stores["b2"].created) == len(made)
    assert scene.catalog.stores.states()["r2"].consecutive_failures == 0


def test_a_store_that_stays_down_is_tried_ever_more_seldom(scene: ArchiveScene) -> None:
    """One upload is tried at a time, after a wait that doubles; new files still reach the other store."""
    scene.stores["r2"].before = fail("r2")
    waits = []
    for number in range(1, 5):
        spool_segments(scene.spool_folder, [number])
        events = scene.run()
        state = scene.catalog.stores.states()["r2"]
        assert state.consecutive_failures == number
        assert [event.store_failures for event in events if isinstance(event, CopyFailed)] == [number]
        assert state.retry_at is not None and state.last_failure_at is not None
        waits.append((state.retry_at - state.last_failure_at).total_seconds())
        scene.ahead += timedelta(seconds=waits[-1] + 1)
    assert waits == [5, 10, 20, 40]
    assert len(contents(scene.stores["b2"])) == 4


@pytest.mark.parametrize("memory_bytes", [160 << 20, 4 << 20])
def test_a_slow_store_holds_nothing_up(scene: ArchiveScene, memory_bytes: int) -> None:
    """While r2 takes nothing off its hands b2 gets every file, however little memory there is; then r2 gets them."""
    made = spool_segments(scene.spool_folder, range(1, 41))
    scene.options = ArchiveOptions(concurrency=2, memory_bytes=memory_bytes)
    slow = hold(scene.stores["r2"], until=lambda: len(scene.stores["b2"].created) == len(made))
    scene.run()
    assert slow == []
    assert_archived(scene, made)


def test_a_store_that_catches_up_holds_nothing_up(scene: ArchiveScene) -> None:
    """While r2 works off what it missed, b2 gets new files at once, though they come last in archiving order."""
    made = spool_segments(scene.spool_folder, range(1, 31))
    scene.stores["r2"].before = fail("r2")
    scene.run()
    scene.settle()
    made |= spool_segments(scene.spool_folder, range(31, 41))
    scene.options = ArchiveOptions(concurrency=2)
    slow = hold(scene.stores["r2"], until=lambda: len(scene.stores["b2"].created) == len(made))
    scene.run()
    assert slow == []
    assert_archived(scene, made)


def test_a_run_goes_on_for_the_others_while_a_store_keeps_it(scene: ArchiveScene) -> None:
    """A run whose time is over cannot end before a hanging store does: until then the other store gets new files."""
    made = spool_segments(scene.spool_folder, range(1, 31))
    scene.options = ArchiveOptions(concurrency=2, max_seconds=0.2)
    slow = hold(scene.stores["r2"], until=lambda: len(scene.stores["b2"].created) == len(made))
    scene.run()
    assert slow == []
    assert contents(scene.stores["b2"]) == made
    assert 0 < len(scene.stores["r2"].created) < len(made)
    scene.options = ArchiveOptions()
    scene.run()
    assert_archived(scene, made)


def hold(store: WatchedStore, *, until: Callable[[], bool]) -> list[str]:
    """Let a store's puts wait until something is the case; return a list of those that waited in vain."""
    given_up: list[str] = []
    never = threading.Event()

    def wait(call: str, key: str) -> None:
        for _ in range(PATIENCE_SECONDS * 100):
            if call != "put" or until() or given_up:
                return
            never.wait(0.01)
        given_up.append(key)

    store.before = wait
    return given_up


def test_an_error_that_nobody_thought_of_stays_with_its_store(scene: ArchiveScene) -> None:
    """A defect in one store's code is a failed copy there, and the other store gets everything."""
    made = spool_segments(scene.spool_folder, [1, 2])

    def broken(_call: str, _key: str) -> None:
        raise ZeroDivisionError("division by zero")

    scene.stores["r2"].before = broken
    event = next(event for event in scene.run() if isinstance(event, CopyFailed))
    assert event.message == f"r2: cannot store '{event.name}': unexpected ZeroDivisionError: division by zero"
    assert contents(scene.stores["b2"]) == made
    assert scene.spooled() == sorted(made)


def lose(path: Path) -> None:
    path.unlink()


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [lose, halve, flip])
@pytest.mark.parametrize("times", [1, 2])
def test_a_lying_store_is_found_out(scene: ArchiveScene, damage: Callable[[Path], None], times: int) -> None:
    """A store that says stored and is not so is seen by reading back: mended at once, or by the next run."""
    made = spool_segments(scene.spool_folder, [1])
    lies: list[str] = []

    def lie(call: str, key: str) -> None:
        if call == "put" and len(lies) < times:
            lies.append(key)
            damage(scene.folder / "r2" / "objects" / key)

    scene.stores["r2"].after = lie
    events = scene.run()
    if times == 2:
        failed = one(events, CopyFailed)
        assert failed.message.startswith("r2: object ")
        assert scene.spooled() == [name_of(1)]
        assert scene.verified("r2") == set()
        scene.settle()
        scene.run()
    assert scene.spooled() == []
    assert contents(scene.stores["r2"]) == contents(scene.stores["b2"]) == made


def test_a_copy_that_was_damaged_later_is_mended(scene: ArchiveScene) -> None:
    """Where the catalog is lost and a store's copy has rotted, the file in the spool replaces it, in this encoding."""
    made = spool_segments(scene.spool_folder, [1])
    scene.run()
    flip(scene.folder / "r2" / "objects" / scene.stores["r2"].created[0])
    scene.lose_catalog()
    scene.codec = Codec.GZIP
    spool_segments(scene.spool_folder, [1])
    scene.run()
    assert scene.spooled() == []
    assert contents(scene.stores["r2"]) == contents(scene.stores["b2"]) == made
    assert scene.stores["r2"].created[-1].endswith(".gz")


def test_without_reading_back_a_short_copy_is_still_found(scene: ArchiveScene) -> None:
    """With read-back off the size is compared."""
    spool_segments(scene.spool_folder, [1])
    scene.options = ArchiveOptions(read_back=False)
    scene.stores["r2"].after = lambda call, key: halve(scene.folder / "r2" / "objects" / key) if call == "put" else None
    assert re.search(r" has \d+ bytes, expected \d+$", one(scene.run(), CopyFailed).message)
    assert scene.spooled() == [name_of(1)]


@pytest.mark.parametrize("trouble", ["unreadable", "unremovable"])
def test_one_file_that_resists_does_not_stop_the_others(scene: ArchiveScene, trouble: str) -> None:
    """The file is left and told; every other one is archived and released."""
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


def test_a_quarantine_that_cannot_be_written(scene: ArchiveScene) -> None:
    """The file stays in the spool, is told, and stops no other one."""
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


def test_a_missing_spool_is_an_error(scene: ArchiveScene) -> None:
    """A spool that is not there is never taken for an empty one."""
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
    """The run ends with the error and releases nothing it could not record; a new catalog adopts what was stored."""
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


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_jumps_loses_nothing(scene: ArchiveScene, hours: int) -> None:
    """Neither a step back nor one ahead keeps files or holds a store that rests longer than it was meant to."""
    made = spool_segments(scene.spool_folder, [1, 2])
    scene.stores["r2"].before = fail("r2")
    scene.run()
    scene.ahead += timedelta(hours=hours)
    scene.stores["r2"].before = nothing
    scene.run()
    assert_archived(scene, made)
    assert all((copy.lag_seconds or 0) >= 0 for copy in scene.catalog.files.copies())


def test_a_single_store_uses_all_of_the_memory(scene: ArchiveScene) -> None:
    """With one store, what it is sent may fill the bound: nothing is kept free for another one."""
    del scene.stores["b2"]
    scene.options = replace(scene.options, memory_bytes=8 << 20, concurrency=2)
    made = spool_segments(scene.spool_folder, range(1, 21))
    scene.run()
    assert scene.spooled() == []
    assert contents(scene.stores["r2"]) == made
