"""The windows from the catalog are those of the archive itself, though only a few records are read."""

import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from wal_pipeline.archive.records import Copy, CopyStatus
from wal_pipeline.archive.recovery.gaps import find_gaps, gap_ledger
from wal_pipeline.archive.recovery.window import windows_by_store
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.commands.health.windows import current_windows
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.wal.names import WalFileName, history_name
from wal_pipeline_tests.support.archive_worlds import SYSTEM, World, day_segments, history, other_file, worlds
from wal_pipeline_tests.support.health_scene import NOW, HealthScene, name


def keep(catalog: Catalog, world: World) -> None:
    """Write a generated archive into a catalog."""
    archive = world.contents
    catalog.system_identifiers.add(SYSTEM, "test", NOW)
    verified = CopyStatus.VERIFIED
    copies = [
        Copy(file, SYSTEM, store, verified, f"key/{file}", None, verified_at=NOW)
        for store, names in archive.copies.items()
        for file in names
        if file in archive.files
    ]
    held = {copy.name for copy in copies}
    catalog.files.record_found([file for file in archive.files.values() if file.name in held], copies)
    for one in archive.backups.values():
        on = [BaseBackupCopy(one.backup.backup_id, SYSTEM, store, verified, 3, 10, NOW) for store in sorted(one.stores)]
        catalog.base_backups.record(one.backup, on)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('windows')}/catalog.sqlite"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=worlds())
def test_same_as_the_archive_itself(url: str, world: World) -> None:
    """Windows and gaps are those that the pure core finds with every record in its hands."""
    catalog = open_catalog(url, uuid.uuid4().hex, clock=lambda: NOW)
    keep(catalog, world)

    def fetch(system_identifier: int, file: WalFileName) -> bytes:
        assert system_identifier == SYSTEM
        return world.contents.histories[file.timeline].render()

    found = current_windows(catalog, ("a", "b"), fetch=fetch)
    catalog.close()
    names = {one for copies in world.contents.copies.values() for one in copies}
    if not names:
        assert found.main(None) is None
        return
    known = {
        timeline: way for timeline, way in world.contents.histories.items() if history_name(timeline).name in names
    }
    files = [file for file in world.contents.files.values() if file.name in names]
    held = [one for one in world.contents.backups.values() if one.stores]
    expected = type(world.contents).of(SYSTEM, files=files, copies=world.contents.copies, backups=held, histories=known)
    assert found.windows == windows_by_store(expected)
    for store in (None, "a", "b"):
        gaps = find_gaps(expected, None if store is None else [store])
        assert found.gaps[store] == gap_ledger(expected, gaps)


def test_history_is_fetched_once(tmp_path: Path) -> None:
    """A timeline history file is read from a store once, then kept in the catalog."""
    catalog = open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite", "main", clock=lambda: NOW)
    catalog.system_identifiers.add(SYSTEM, "test", NOW)
    way = history(2, 1, 3.25)
    files = [*day_segments(1, range(1, 4)), *day_segments(2, range(3, 6)), other_file("00000002.history", NOW)]
    verified = CopyStatus.VERIFIED
    catalog.files.record_found(
        files, [Copy(file.name, SYSTEM, "r2", verified, "key", None, verified_at=NOW) for file in files]
    )
    asked: list[str] = []

    def fetch(_system_identifier: int, file: WalFileName) -> bytes:
        asked.append(file.name)
        return way.render()

    for _ in range(2):
        assert current_windows(catalog, ("r2",), fetch=fetch).notes == ()
    assert asked == ["00000002.history"]
    assert current_windows(catalog, ("r2",)).main_timeline == 2


def test_dead_store_is_not_asked_each_time(tmp_path: Path) -> None:
    """A history that cannot be had is said so, and asked for again only after ten minutes."""
    catalog = open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite", "main", clock=lambda: NOW)
    catalog.system_identifiers.add(SYSTEM, "test", NOW)
    file = other_file("00000002.history", NOW)
    catalog.files.record_found([file], [Copy(file.name, SYSTEM, "r2", CopyStatus.VERIFIED, "k", None, verified_at=NOW)])
    asked: list[str] = []

    def fetch(_system_identifier: int, file: WalFileName) -> bytes:
        asked.append(file.name)
        raise StoreUnavailableError("r2", "no answer")

    notes = [current_windows(catalog, ("r2",), fetch=fetch).notes for _ in range(2)]
    unread = "'00000002.history' is not read yet: WAL of the timelines before is not counted as its past"
    assert notes == [("r2: no answer", unread), (unread,)]
    assert asked == ["00000002.history"]


def test_without_base_backup_there_is_no_window(tmp_path: Path) -> None:
    """WAL alone recovers nothing."""
    scene = HealthScene(tmp_path)
    scene.archive(1, 2, 3)
    assert current_windows(scene.catalog, ("r2", "b2")).windows == {None: (), "r2": (), "b2": ()}


def test_each_store_by_itself(tmp_path: Path) -> None:
    """A store that lacks a segment ends earlier; together they lack nothing."""
    scene = HealthScene(tmp_path)
    scene.archive(1, 2, 3, 4, 5)
    scene.back_up(1)
    scene.catalog.files.remove_copy(SYSTEM, [name(3)], "b2")
    found = current_windows(scene.catalog, ("r2", "b2"))
    ends = {store: window.last_segment for store in (None, "r2", "b2") if (window := found.main(store))}
    assert ends == {None: name(5), "r2": name(5), "b2": name(2)}
    assert [gap.first_missing for gap in found.open_gaps("b2")] == [name(3)]
    assert found.open_gaps(None) == ()


def test_empty_catalog(tmp_path: Path) -> None:
    """Nothing is known yet, and nothing fails."""
    found = current_windows(HealthScene(tmp_path).catalog, ("r2", "b2"))
    assert (found.system_identifier, found.main(None), found.latest_commit_at) == (None, None, None)
