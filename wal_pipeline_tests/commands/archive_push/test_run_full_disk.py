"""Tests that a run continues and frees space while a full disk keeps its catalog from being written."""

import os
from pathlib import Path

import pytest

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.commands.archive_push import uploader
from wal_pipeline.commands.archive_push.events import ArchiveEvent, CopyFailed, FileReleased
from wal_pipeline.commands.rebuild_catalog import rebuild
from wal_pipeline.errors import CatalogFullError
from wal_pipeline_tests.support.archive_scene import (
    CLUSTER,
    ArchiveScene,
    WatchedStore,
    contents,
    fail,
    folder_store,
    nothing,
)
from wal_pipeline_tests.support.full_disk import PageLimit, fill, small_disk
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of, spool_segments
from wal_pipeline_tests.support.upkeep_scene import DAY, UpkeepScene


def run(scene: ArchiveScene, limit: PageLimit, *, room_after: int) -> list[ArchiveEvent]:
    """Archive on a full disk that has room again after some releases."""
    events: list[ArchiveEvent] = []
    limit.is_full = True
    for event in scene.archiver().drain():
        events.append(event)
        released = sum(isinstance(one, FileReleased) for one in events)
        limit.is_full = released < room_after
    return events


def test_what_is_on_every_store_is_released_and_recorded_later(scene: ArchiveScene) -> None:
    """The catalog has no room until files were released. Then every copy is recorded."""
    made = spool_segments(scene.spool_folder, range(1, 31))
    scene.catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "a test", scene.clock())
    with PageLimit() as limit:
        run(scene, limit, room_after=20)
    assert scene.spooled() == []
    for name, store in scene.stores.items():
        assert contents(store) == made
        assert scene.verified(name) == set(made)
    assert scene.catalog.frames.files()["released_at"].notna().all()
    assert {event.succeeded for event in scene.catalog.stores.events(scene.clock().replace(year=2000))} == {30}


def test_a_disk_that_stays_full_ends_the_run_with_its_name(scene: ArchiveScene) -> None:
    """Every file is still released; the error names the disk, and a rebuild adds the missing records."""
    made = spool_segments(scene.spool_folder, range(1, 31))
    scene.catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "a test", scene.clock())
    with PageLimit() as limit:
        with pytest.raises(CatalogFullError) as raised:
            run(scene, limit, room_after=100)
        limit.is_full = False
        assert scene.verified("r2") != set(made)
        rebuild(list(scene.stores.values()), scene.catalog, "", CLUSTER, workers=1)
    shown = f"catalog 'sqlite+pysqlite:///{scene.folder}/catalog.sqlite'"
    assert raised.value.message.startswith(f"{shown} cannot be written: the disk of '{scene.folder}' is full; ")
    assert raised.value.message.endswith(" records of this run could not be written")
    assert raised.value.hint is not None and "'wal-pipeline catalog rebuild'" in raised.value.hint
    assert scene.spooled() == []
    assert all(contents(store) == made for store in scene.stores.values())
    assert scene.verified("r2") == scene.verified("b2") == set(made)


def test_a_verification_misses_what_was_not_recorded(tmp_path: Path) -> None:
    """Copies that the catalog does not know are reported, and neither judged nor expired."""
    scene = UpkeepScene(tmp_path)
    scene.run_for(4)
    name = scene.archive(5, scene.now, recorded=False)
    scene.now += DAY
    done = scene.verify()
    assert (done.faults, done.is_right) == ((), False)
    assert {store: tally.unrecorded for store, tally in done.tallies.items()} == {"r2": [name], "b2": [name]}
    [alert] = {alert.message.split(" on ")[0] for alert in scene.catalog.alerts.active()}
    assert alert == "1 copies"
    scene.expirer().expire()
    assert name in scene.files("r2") & scene.files("b2")
    rebuild(list(scene.stores.values()), scene.catalog, "", "main", workers=1)
    assert scene.verify().is_right


def test_a_store_that_fails_on_a_full_disk_holds_nothing_up(
    scene: ArchiveScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is owed too: the other store gets every file, and the run ends with what failed on record."""
    monkeypatch.setattr(uploader, "FIRST_BACKOFF_SECONDS", 300.0)  # it fails once, however slow this machine is
    made = spool_segments(scene.spool_folder, range(1, 31))
    scene.catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "a test", scene.clock())
    scene.stores["r2"].before = fail("r2")
    with PageLimit() as limit:
        limit.is_full = True
        events: list[ArchiveEvent] = []
        for event in scene.archiver().drain():
            events.append(event)
            limit.is_full = len(contents(scene.stores["b2"])) < len(made)
    assert any(isinstance(event, CopyFailed) for event in events)
    assert contents(scene.stores["b2"]) == made
    assert scene.verified("b2") == set(made)
    assert scene.catalog.stores.states()["r2"].consecutive_failures == 1
    assert CopyStatus.FAILED in {copy.status for copy in scene.catalog.files.copies() if copy.store == "r2"}
    scene.stores["r2"].before = nothing
    scene.settle()
    scene.run()
    assert scene.spooled() == []


def test_a_real_full_disk_empties_by_itself(tmp_path: Path) -> None:
    """With spool and catalog on a full disk, one run archives, releases and records every file."""
    with small_disk(tmp_path / "disk", 24) as disk:
        if disk is None:
            pytest.skip("a disk of its own needs the right to mount")
        stores = {name: WatchedStore(folder_store(name, tmp_path / name)) for name in ("r2", "b2")}
        scene = ArchiveScene(disk, stores)
        made = spool_segments(scene.spool_folder, [1])
        scene.run()
        waiting = spool_segments(scene.spool_folder, range(2, 22))
        fill(disk)
        assert os.statvfs(disk).f_bavail == 0
        scene.run()
        assert scene.spooled() == []
        for name, store in stores.items():
            assert contents(store) == made | waiting
            assert scene.verified(name) == {name_of(number) for number in range(1, 22)}
        scene.catalog.close()


def test_a_catalog_that_cannot_even_be_opened_names_the_disk(tmp_path: Path) -> None:
    """Without a byte for SQLite's shared memory file, the error also names the disk and a way out."""
    with small_disk(tmp_path / "disk", 4) as disk:
        if disk is None:
            pytest.skip("a disk of its own needs the right to mount")
        open_catalog(f"sqlite:///{disk}/catalog.sqlite", CLUSTER).close()
        fill(disk)
        with pytest.raises(CatalogFullError, match="the disk of") as raised:
            open_catalog(f"sqlite:///{disk}/catalog.sqlite", CLUSTER)
        assert raised.value.hint is not None and raised.value.hint.startswith("Make room on that disk")
