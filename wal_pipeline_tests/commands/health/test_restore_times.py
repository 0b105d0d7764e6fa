"""Tests what a restore from each store would have to do, and how long it is predicted to take, by the catalog."""

from dataclasses import replace
from datetime import timedelta

import pytest

from wal_pipeline.archive.records import BackupKind
from wal_pipeline.archive.restore_time.measure import RestoreWork
from wal_pipeline.commands.health.restore_times import predict_restores, restore_work
from wal_pipeline.commands.restore_times import KnownTimes, keep_time
from wal_pipeline_tests.support.health_scene import SIZE, HealthScene
from wal_pipeline_tests.support.measured_times import measured_drill

FULL = 10**9
STORED = 3 * 10**8


def work(scene: HealthScene, store: str, **changed: object) -> RestoreWork | None:
    """Return the work of a restore; the newest base backup can be changed."""
    windows = scene.facts().windows
    backups = {one.backup_id: one for one in windows.backups}
    newest = max(backups)
    return restore_work(windows, backups | {newest: replace(backups[newest], **changed)}, store)  # type: ignore[arg-type]


def test_a_restore_begins_with_the_newest_base_backup_there(scene: HealthScene) -> None:
    """A store that lacks it has more WAL to replay."""
    scene.archive(11, 12, 13)
    scene.back_up(12, age=timedelta(minutes=1), on=("r2",))
    end = 14 * SIZE
    assert work(scene, "r2") == RestoreWork(("r2",), STORED, FULL, end - (12 * SIZE + 40))
    of_b2 = work(scene, "b2")
    assert of_b2 is not None
    assert of_b2.wal_bytes > 2 * SIZE


def test_a_chain_is_downloaded_and_combined(scene: HealthScene) -> None:
    """All of its base backups; the result is as large as the largest."""
    first = max(one.backup_id for one in scene.facts().windows.backups)
    scene.archive(11, 12, 13)
    scene.back_up(12, age=timedelta(minutes=1))
    found = work(scene, "r2", kind=BackupKind.INCREMENTAL, parent_id=first, size_bytes=10**7, stored_size_bytes=10**6)
    assert found is not None
    assert (found.fetched_bytes, found.written_bytes, found.combined_bytes) == (STORED + 10**6, FULL, FULL + 10**7)


def test_one_that_names_its_volumes_is_not_combined(scene: HealthScene) -> None:
    """An incremental one by file is restored from the volumes that it names alone."""
    first = max(one.backup_id for one in scene.facts().windows.backups)
    scene.archive(11, 12, 13)
    scene.back_up(12, age=timedelta(minutes=1))
    found = work(scene, "r2", kind=BackupKind.INCREMENTAL, parent_id=first, fetched_size_bytes=12345)
    assert found is not None
    assert (found.fetched_bytes, found.written_bytes, found.combined_bytes) == (12345, FULL, 0)


def test_blocks_on_files_are_combined_with_the_newest_of_files(scene: HealthScene) -> None:
    """Which is fetched from the volumes that it names; those before it are not brought back."""
    scene.archive(11, 12, 13, 14)
    for number, age in ((11, 3), (12, 2), (13, 1)):
        scene.back_up(number, age=timedelta(minutes=age))
    windows = scene.facts().windows
    backups = {one.backup_id: one for one in windows.backups}
    full, by_file, by_block = sorted(backups)[-3:]
    backups[full] = replace(backups[full], fetched_size_bytes=777)
    backups[by_file] = replace(backups[by_file], parent_id=full, fetched_size_bytes=12345)
    backups[by_block] = replace(backups[by_block], parent_id=by_file, size_bytes=10**7, stored_size_bytes=10**6)
    found = restore_work(windows, backups, "r2")
    assert found is not None
    assert (found.fetched_bytes, found.written_bytes, found.combined_bytes) == (12345 + 10**6, FULL, FULL + 10**7)


@pytest.mark.parametrize("parent", ["20200101T000000Z-000000010000000000000001", None])
def test_an_unknown_parent_makes_it_unknown(scene: HealthScene, parent: str | None) -> None:
    """There is no number out of nothing; nor from a chain that goes in a circle."""
    newest = max(one.backup_id for one in scene.facts().windows.backups)
    assert work(scene, "r2", parent_id=parent or newest) is None


def test_only_stores_with_a_window_have_a_prediction(scene: HealthScene) -> None:
    """And it is of the facts, by what the catalog has measured."""
    facts = scene.facts()
    assert set(facts.restore_times) == {"r2", "b2"}
    assert facts.restore_times["r2"].seconds is None
    for store in ("r2", "b2"):
        keep_time(scene.catalog, measured_drill(facts.restore_times["r2"].host, stores=(store,)))
    again = scene.facts()
    assert all(one.seconds is not None and not one.is_guess for one in again.restore_times.values())
    empty = replace(facts.windows, windows={})
    assert predict_restores(empty, KnownTimes(), "db1") == {}
