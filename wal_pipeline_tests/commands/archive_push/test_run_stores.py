"""Tests that a store which is down, slow or wrong does not delay the others."""

import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec, CopyStatus
from wal_pipeline.commands.archive_push.events import CopyFailed
from wal_pipeline.commands.archive_push.flow_control import ArchiveOptions
from wal_pipeline_tests.support.archive_scene import (
    PATIENCE_SECONDS,
    ArchiveScene,
    WatchedStore,
    assert_archived,
    contents,
    fail,
    names,
    nothing,
    one,
)
from wal_pipeline_tests.support.segments import name_of, spool_segments


def hold(store: WatchedStore, *, until: Callable[[], bool]) -> list[str]:
    """Let a store's puts wait until ``until`` is true; return a list of those that waited in vain."""
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


def test_a_store_that_is_down_holds_nothing_up(scene: ArchiveScene) -> None:
    """With r2 down b2 gets every file and the spool keeps them; r2 rests, then catches up by itself."""
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
    """While r2 accepts nothing, b2 gets every file, even with little memory; then r2 gets them."""
    made = spool_segments(scene.spool_folder, range(1, 41))
    scene.options = ArchiveOptions(concurrency=2, memory_bytes=memory_bytes)
    slow = hold(scene.stores["r2"], until=lambda: len(scene.stores["b2"].created) == len(made))
    scene.run()
    assert slow == []
    assert_archived(scene, made)


def test_a_store_that_catches_up_holds_nothing_up(scene: ArchiveScene) -> None:
    """While r2 catches up, b2 gets new files at once, although they come last in archiving order."""
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
    """A run whose time is over waits for a hanging store, and meanwhile the other store gets new files."""
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
    """Reading back finds a false success of a store, which is mended at once or by the next run."""
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
    """After the loss of the catalog, the spool's file replaces a damaged copy, in the present encoding."""
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
    """Without read-back the sizes are compared."""
    spool_segments(scene.spool_folder, [1])
    scene.options = ArchiveOptions(read_back=False)
    scene.stores["r2"].after = lambda call, key: halve(scene.folder / "r2" / "objects" / key) if call == "put" else None
    assert re.search(r" has \d+ bytes, expected \d+$", one(scene.run(), CopyFailed).message)
    assert scene.spooled() == [name_of(1)]


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_jumps_loses_nothing(scene: ArchiveScene, hours: int) -> None:
    """A step of the clock in either direction neither keeps files nor makes a store rest longer."""
    made = spool_segments(scene.spool_folder, [1, 2])
    scene.stores["r2"].before = fail("r2")
    scene.run()
    scene.ahead += timedelta(hours=hours)
    scene.stores["r2"].before = nothing
    scene.run()
    assert_archived(scene, made)
    assert all((copy.lag_seconds or 0) >= 0 for copy in scene.catalog.files.copies())


def test_a_single_store_uses_all_of_the_memory(scene: ArchiveScene) -> None:
    """A single store may use all of the memory: nothing is kept free for another one."""
    del scene.stores["b2"]
    scene.options = replace(scene.options, memory_bytes=8 << 20, concurrency=2)
    made = spool_segments(scene.spool_folder, range(1, 21))
    scene.run()
    assert scene.spooled() == []
    assert contents(scene.stores["r2"]) == made
