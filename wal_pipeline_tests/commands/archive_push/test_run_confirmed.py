"""Tests that the stores confirm their copies before a file is released on the catalog's word."""

import threading
from collections.abc import Callable

import pytest

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.commands.archive_push.events import CopyFailed, CopyVerified, FileQuarantined, FileReleased
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline.commands.archive_push.pending import pending_work
from wal_pipeline.stores.base import Body
from wal_pipeline_tests.support.archive_scene import ArchiveScene, contents, fail, nothing
from wal_pipeline_tests.support.segments import name_of, segment_bytes, spool_segments


def remove(scene: ArchiveScene, store: str) -> None:
    """Remove the object."""
    for listed in list(scene.stores[store].inner.list("")):
        scene.stores[store].inner.delete(listed.key)


def cut(scene: ArchiveScene, store: str) -> None:
    """Cut the object short."""
    put_other(scene, store, lambda data: data[:-1])


def put_other(scene: ArchiveScene, store: str, change: Callable[[bytes], bytes]) -> None:
    inner = scene.stores[store].inner
    [listed] = inner.list("")
    described = inner.head(listed.key)
    assert described is not None
    with inner.open(listed.key) as stream:
        data = stream.read()
    inner.delete(listed.key)
    inner.put_if_absent(listed.key, Body.of(change(data)), described.metadata)


def forget_metadata(scene: ArchiveScene, store: str) -> None:
    """Remove the object's metadata."""
    inner = scene.stores[store].inner
    [listed] = inner.list("")
    inner.delete(listed.key)
    inner.put_if_absent(listed.key, Body.of(b"something"), {})


@pytest.mark.parametrize("damage", [remove, cut])
@pytest.mark.parametrize("where", [("r2",), ("r2", "b2")])
def test_a_copy_that_is_gone_is_stored_again(
    scene: ArchiveScene, damage: Callable[[ArchiveScene, str], None], where: tuple[str, ...]
) -> None:
    """The file stays in the spool until both stores have it again, whatever the catalog says."""
    made = spool_segments(scene.spool_folder, [1])
    scene.run()
    for store in where:
        damage(scene, store)
    spool_segments(scene.spool_folder, [1])
    events = scene.run()
    assert contents(scene.stores["r2"]) == contents(scene.stores["b2"]) == made
    assert sum(isinstance(event, FileReleased) for event in events) == 1
    assert {event.copy.store for event in events if isinstance(event, CopyVerified) and event.is_new} == set(where)
    assert scene.spooled() == []
    assert scene.verified("r2") == scene.verified("b2") == set(made)


def test_an_object_that_is_something_else_is_a_conflict(scene: ArchiveScene) -> None:
    """The object is not overwritten, and the file is moved to quarantine."""
    spool_segments(scene.spool_folder, [1])
    scene.run()
    forget_metadata(scene, "r2")
    spool_segments(scene.spool_folder, [1])
    [event] = [event for event in scene.run() if isinstance(event, FileQuarantined)]
    assert event.path.read_bytes() == segment_bytes(1)
    with scene.stores["r2"].inner.open(next(iter(scene.stores["r2"].inner.list(""))).key) as stream:
        assert stream.read() == b"something"


def test_a_store_that_does_not_answer_keeps_the_file(scene: ArchiveScene) -> None:
    """While a store does not answer, nothing is released, and no run is started only for that."""
    spool_segments(scene.spool_folder, [1])
    scene.run()
    spool_segments(scene.spool_folder, [1])
    scene.stores["r2"].before = fail("r2")
    [failed] = [event for event in scene.run() if isinstance(event, CopyFailed)]
    assert failed.message == "r2: cannot head: it is down"
    assert scene.spooled() == [name_of(1)]
    assert {copy.status for copy in scene.catalog.files.copies()} == {CopyStatus.VERIFIED}
    assert not pending_work(scene.spool, scene.catalog, scene.stores, scene.clock()).is_due
    scene.stores["r2"].before = nothing
    scene.settle()
    assert pending_work(scene.spool, scene.catalog, scene.stores, scene.clock()).is_due
    scene.run()
    assert scene.spooled() == []


def test_many_files_that_are_recorded_are_all_confirmed(scene: ArchiveScene) -> None:
    """A spool restored from a backup becomes empty with one request for each copy, and nothing is sent."""
    spool_segments(scene.spool_folder, range(1, 101))
    scene.run()
    for store in scene.stores.values():
        store.calls.clear()
    spool_segments(scene.spool_folder, range(1, 101))
    scene.run()
    assert scene.spooled() == []
    assert all([call for call, _ in store.calls] == ["head"] * 100 for store in scene.stores.values())


@pytest.mark.parametrize("lacking", [False, True])
def test_a_store_that_is_slow_to_confirm_holds_nothing_up(scene: ArchiveScene, lacking: bool) -> None:
    """While r2 does not confirm its copies, b2 gets its missing and new files, in little memory."""
    old = spool_segments(scene.spool_folder, range(1, 41))
    if lacking:
        scene.stores["b2"].before = fail("b2")
    scene.run()
    scene.stores["b2"].before = nothing
    scene.settle()
    old |= spool_segments(scene.spool_folder, range(1, 41))
    new = spool_segments(scene.spool_folder, range(41, 51))
    scene.options = ArchiveOptions(concurrency=1, memory_bytes=4 << 20)
    given_up: list[str] = []
    never = threading.Event()

    def wait(call: str, key: str) -> None:
        for _ in range(3000):
            if call == "list" or len(contents_names(scene, "b2")) == 50 or given_up:
                return
            never.wait(0.01)
        given_up.append(key)

    scene.stores["r2"].before = wait
    scene.run()
    assert given_up == []
    assert scene.spooled() == []
    assert contents(scene.stores["r2"]) == contents(scene.stores["b2"]) == old | new


def contents_names(scene: ArchiveScene, store: str) -> set[str]:
    return set(scene.stores[store].created)
