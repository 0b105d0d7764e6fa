"""Tests that the job record_archive shows each copy that was archived without Dagster, once."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.archive.records import BackupKind, DamagedPages
from wal_pipeline.orchestration.assets.base_backup_metadata import backup_materialization, recorded_outcome
from wal_pipeline.orchestration.assets.wal.segment_metadata import segment_materialization
from wal_pipeline.orchestration.jobs import record as record_job
from wal_pipeline.orchestration.jobs.archive import build_archive_job
from wal_pipeline.orchestration.jobs.unrecorded import find_unrecorded
from wal_pipeline_tests.support.segments import name_of, segment_bytes
from wal_pipeline_tests.support.upkeep_pipeline import KEYS, STORES, record, scene_resource, wal_materialized
from wal_pipeline_tests.support.upkeep_scene import UpkeepScene

WAL = KEYS.wal_partitions_name


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    """Six segments and two base backups that Dagster does not know."""
    made = UpkeepScene(tmp_path)
    made.run_for(6, backup_every=3)
    return made


def test_everything_in_the_catalog_is_shown(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """Files and base backups get partitions in WAL order, and a materialization on each store."""
    record(scene, instance)
    names = [name_of(number) for number in range(1, 7)]
    assert list(instance.get_dynamic_partitions(WAL)) == names
    assert wal_materialized(instance) == {store: set(names) for store in STORES}
    ids = {backup.backup_id for backup in scene.catalog.base_backups.all()}
    assert len(ids) == 2
    assert set(instance.get_dynamic_partitions(KEYS.base_backup_partitions_name)) == ids
    for store in STORES:
        assert instance.get_materialized_partitions(KEYS.base_backup(store)) == ids


def test_the_metadata_is_that_of_a_run(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The metadata are those of an archiving run, except the time of the checksum, which has no record."""
    done = record(scene, instance)
    events = [one for one in done.get_asset_materialization_events() if one.partition == name_of(3)]
    assert [one.asset_key for one in events] == [KEYS.wal_segment("b2"), KEYS.wal_segment("r2")]
    [file], [copy] = (
        scene.catalog.files.files_of([name_of(3)]).values(),
        [one for one in scene.catalog.files.copies() if (one.name, one.store) == (name_of(3), "b2")],
    )
    assert copy.encoding is not None
    expected = segment_materialization(KEYS, file, copy, {"compress": copy.encoding.seconds})
    assert events[0].materialization.metadata == expected.metadata


def test_a_person_reads_a_sentence_first(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """Files and base backups begin with a sentence; no number has many digits, and no server is called 180006."""
    done = record(scene, instance)
    events = [one.materialization for one in done.get_asset_materialization_events() if one.partition is not None]
    assert {next(iter(one.metadata)) for one in events} == {"answer"}
    for one in events:
        numbers = [value.value for value in one.metadata.values() if isinstance(value, dg.FloatMetadataValue)]
        assert all(round(number, 3) == number for number in numbers if number is not None)
    of_backup = next(one for one in events if one.asset_key == KEYS.base_backup("r2"))
    assert str(of_backup.metadata["answer"].value).startswith("full base backup on r2, finished 2040-03-01 12:03:00Z, ")
    assert of_backup.metadata["server"].value == "PostgreSQL 18.6"
    of_file = next(one for one in events if one.asset_key == KEYS.wal_segment("r2"))
    assert str(of_file.metadata["answer"].value).startswith("on r2 and verified, ")


def test_the_page_of_base_backups_does_not_go_back_to_an_older_one(
    scene: UpkeepScene, instance: dg.DagsterInstance
) -> None:
    """The newest was recorded by its own run: it stays the last that was recorded, on each store."""
    newest = max(scene.catalog.base_backups.all(), key=lambda one: one.finished_at)
    instance.add_dynamic_partitions(KEYS.base_backup_partitions_name, [newest.backup_id])
    for copy in scene.catalog.base_backups.copies():
        if copy.backup_id == newest.backup_id:
            instance.report_runless_asset_event(backup_materialization(KEYS, newest, recorded_outcome(copy)))
    done = record(scene, instance)
    for store in STORES:
        events = [one for one in done.get_asset_materialization_events() if one.asset_key == KEYS.base_backup(store)]
        assert len(events) == 2
        assert events[-1].partition == newest.backup_id


def test_method_note_and_damaged_pages_are_shown(scene: UpkeepScene) -> None:
    """The first sentence tells of the damage; the rows say how it was read, and what a restore of it downloads."""
    backup, copy = scene.catalog.base_backups.all()[0], scene.catalog.base_backups.copies()[0]
    full = _shown(backup_materialization(KEYS, replace(backup, note="before the upgrade"), recorded_outcome(copy)))
    assert full["note"] == "before the upgrade"
    assert full["method"] == "remote: pg_basebackup sent it in one stream"
    assert "damage" not in full["answer"]
    worse = replace(
        backup,
        kind=BackupKind.INCREMENTAL,
        parent_id=backup.backup_id,
        stored_size_bytes=1 << 20,
        fetched_size_bytes=5 << 20,
        damaged_pages=(DamagedPages("base/5/16384", (3, 7), 2),),
    )
    shown = _shown(backup_materialization(KEYS, worse, recorded_outcome(copy)))
    assert shown["answer"].endswith("; 2 damaged pages: wrong checksum in 'base/5/16384' blocks 3, 7")
    assert shown["method"].startswith("local: ")
    assert shown["a restore downloads"] == "5.0 MiB, of which 4.0 MiB of earlier ones"


def _shown(materialization: dg.AssetMaterialization) -> dict[str, str]:
    return {name: str(value.value) for name, value in materialization.metadata.items()}


def test_what_is_shown_is_not_shown_again(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A second run records only new copies, and none on a store without a copy."""
    record(scene, instance)
    scene.archive(7, scene.now, on=["b2"])
    done = record(scene, instance)
    events = [one for one in done.get_asset_materialization_events() if one.asset_key != KEYS.recovery_window]
    assert [(one.asset_key, one.partition) for one in events] == [(KEYS.wal_segment("b2"), name_of(7))]


def test_a_partition_that_was_lost_is_shown_again(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The UI shows no record without its partition, so the partition is added again."""
    record(scene, instance)
    instance.delete_dynamic_partition(WAL, name_of(2))
    record(scene, instance)
    assert set(instance.get_dynamic_partitions(WAL)) == {name_of(number) for number in range(1, 7)}


def test_a_run_is_bounded(scene: UpkeepScene, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run records the first files in WAL order, and the next run the rest."""
    monkeypatch.setattr(record_job, "FILES_PER_RUN", 4)
    monkeypatch.setattr(record_job, "_BATCH", 2)
    record(scene, instance)
    assert list(instance.get_dynamic_partitions(WAL)) == [name_of(number) for number in range(1, 5)]
    record(scene, instance)
    assert list(instance.get_dynamic_partitions(WAL)) == [name_of(number) for number in range(1, 7)]


def test_what_an_archiving_run_records_is_complete(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """After an archiving run nothing is left to record of its files."""
    record(scene, instance)
    resource = scene_resource(scene)
    (scene.folder / "spool" / name_of(7)).write_bytes(segment_bytes(7))
    done = build_archive_job(KEYS).execute_in_process(
        instance=instance,
        resources={"wal_pipeline": resource},
        run_config={"ops": {"archive_spool": {"config": {"linger_seconds": 0}}}},
    )
    assert done.success
    assert name_of(7) in wal_materialized(instance)["r2"]
    assert find_unrecorded(instance, KEYS, scene.catalog, STORES, scene.now).count == 0
