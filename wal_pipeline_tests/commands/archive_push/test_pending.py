"""Whether the spool holds work now, and how a sensor's tick says so."""

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import pytest

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.archive_push.pending import PendingWork, pending_work
from wal_pipeline.commands.pause import pause
from wal_pipeline_tests.support.archive_scene import ArchiveScene, fill
from wal_pipeline_tests.support.catalog_records import copy_of, segment
from wal_pipeline_tests.support.restore_archive import describe_file
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of, spool_segments


def look(scene: ArchiveScene) -> PendingWork:
    return pending_work(scene.spool, scene.catalog, ("r2", "b2"), scene.clock())


def rest(scene: ArchiveScene, store: str) -> None:
    """Record that a store failed just now."""
    now = scene.clock()
    scene.catalog.stores.save_state(StoreState(store, 1, "down", now, None, now + timedelta(minutes=5)))


def record(scene: ArchiveScene, made: dict[str, bytes], *stores: str) -> None:
    for name, content in made.items():
        file = describe_file(name, content, SYSTEM_IDENTIFIER)
        scene.catalog.files.record_verified(file, [copy_of(file, store) for store in stores])
    scene.catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "test", scene.clock())


def test_an_empty_spool(scene: ArchiveScene) -> None:
    """Nothing waits."""
    work = look(scene)
    assert (work.is_due, work.describe()) == (False, "the spool is empty")


def test_files_wait(scene: ArchiveScene) -> None:
    """Whole files are work; growing ones are told."""
    spool_segments(scene.spool_folder, [1, 2])
    (scene.spool_folder / name_of(3)).write_bytes(b"half")
    work = look(scene)
    assert work.is_due
    assert work.describe() == "2 files wait in the spool (2 MiB), 1 still growing"


def test_only_growing_files(scene: ArchiveScene) -> None:
    """Half a file is no work until it has settled."""
    (scene.spool_folder / name_of(3)).write_bytes(b"half")
    assert not look(scene).is_due
    scene.settle()
    assert look(scene).is_due


def test_files_that_wait_for_a_resting_store_alone(scene: ArchiveScene) -> None:
    """They are no work until it may be tried again; a file that another store lacks is."""
    made = spool_segments(scene.spool_folder, [1, 2])
    record(scene, made, "b2")
    rest(scene, "r2")
    work = look(scene)
    assert not work.is_due
    assert work.describe().startswith("2 files wait in the spool (2 MiB), r2 failed and is tried again at ")
    spool_segments(scene.spool_folder, [3])
    assert look(scene).is_due
    (scene.spool_folder / name_of(3)).unlink()
    scene.settle()
    assert look(scene).is_due


def test_files_that_every_store_holds(scene: ArchiveScene) -> None:
    """They only have to leave the spool: that is work, but not while a store rests, which has to confirm its copy."""
    record(scene, spool_segments(scene.spool_folder, [1]), "r2", "b2")
    assert look(scene).is_due
    rest(scene, "r2")
    assert not look(scene).is_due


def test_a_failed_copy_is_none(scene: ArchiveScene) -> None:
    """A record of a failed try does not count as a copy."""
    made = spool_segments(scene.spool_folder, [1])
    file = describe_file(name_of(1), made[name_of(1)], SYSTEM_IDENTIFIER)
    scene.catalog.files.record_failed(file, copy_of(file, "b2", CopyStatus.FAILED))
    rest(scene, "r2")
    assert look(scene).is_due


def test_a_pause(scene: ArchiveScene) -> None:
    """While archiving is paused nothing is due, and the tick says why."""
    spool_segments(scene.spool_folder, [1])
    pause(scene.catalog, scene.clock(), length=timedelta(hours=1), reason="move", by="anna")
    work = look(scene)
    assert not work.is_due
    assert "archiving is paused until " in work.describe()


@pytest.mark.parametrize(("stores", "look_ups"), [(("b2",), 10), ((), 1)])
def test_ten_thousand_files(
    scene: ArchiveScene, stores: tuple[str, ...], look_ups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a store rests, a look-up for each thousand files decides; where the newest is due, one is enough."""
    fill(scene.spool_folder, 10_000)
    files = [replace(segment(), name=name_of(number)) for number in range(1, 10_001)]
    scene.catalog.files.record_found(files, [copy_of(file, store) for file in files for store in stores])
    looked_up: list[int] = []
    asked = scene.catalog.files.copies_of

    def copies_of(names: Collection[str]) -> object:
        looked_up.append(len(names))
        return asked(names)

    monkeypatch.setattr(scene.catalog.files, "copies_of", copies_of)
    rest(scene, "r2")
    work = look(scene)
    assert (work.files, work.is_due) == (10_000, not stores)
    assert looked_up == [1000] * look_ups
