"""Tests that a backfill of chosen partitions records materializations, and audit lines with its run."""

import json
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.orchestration.assets.base_backups import build_backup_assets
from wal_pipeline.orchestration.assets.segments import build_segment_assets
from wal_pipeline.orchestration.jobs.verify import build_verification_checks
from wal_pipeline_tests.support.damage import damage
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_pipeline import KEYS, STORES, evaluated, fill, verify_deep
from wal_pipeline_tests.support.upkeep_scene import UpkeepScene


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    made = UpkeepScene(tmp_path)
    made.run_for(4)
    return made


def audited(scene: UpkeepScene) -> list[dict[str, object]]:
    lines = (scene.folder / "state" / "audit.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "at"} for line in lines]


def test_a_segment(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A copy that one store lacks comes from the other store."""
    key = scene.key_of("b2", name_of(3))
    scene.stores["b2"].inner.delete(key)
    instance.add_dynamic_partitions(KEYS.wal_partitions_name, [name_of(3)])
    done = fill(scene, instance, build_segment_assets(KEYS, STORES), KEYS.wal_segment("b2"), name_of(3))
    assert done.success
    assert key in scene.keys("b2")
    assert instance.get_materialized_partitions(KEYS.wal_segment("b2")) == {name_of(3)}
    assert audited(scene) == [
        {
            "action": "copy",
            "subject": name_of(3),
            "result": "verified",
            "by": f"run {done.run_id}",
            "store": "b2",
            "object_key": key,
        }
    ]


def test_the_verdict_of_the_last_verification_stays(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A backfill repeats the verdict of its asset's checks, which Dagster itself skips in a backfill."""
    damage(scene, "b2", name_of(2), "bit turned")
    checks = build_verification_checks(KEYS, STORES)
    verify_deep(scene, instance)
    scene.stores["b2"].inner.delete(scene.key_of("b2", name_of(3)))
    instance.add_dynamic_partitions(KEYS.wal_partitions_name, [name_of(3)])
    done = fill(scene, instance, build_segment_assets(KEYS, STORES), KEYS.wal_segment("b2"), name_of(3), checks)
    assert done.success
    filled = KEYS.wal_segment("b2")
    found = {one.check_name: one for one in done.get_asset_check_evaluations() if one.asset_key == filled}
    assert set(found) == {"names_and_sizes", "content", "no_gap", "every_file", "newest_fresh"}
    for name in ("names_and_sizes", "content"):
        assert not found[name].passed
        assert str(found[name].description).startswith("1 copies are missing or damaged; first: ")
    assert evaluated(instance, filled, *found) == [True] * 5
    assert not any(one.asset_key == KEYS.wal_segment("r2") for one in done.get_asset_check_evaluations())


def test_a_segment_that_no_store_has(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The backfill fails, and the audit log has the failure."""
    instance.add_dynamic_partitions(KEYS.wal_partitions_name, [name_of(9)])
    done = fill(scene, instance, build_segment_assets(KEYS, STORES), KEYS.wal_segment("b2"), name_of(9))
    assert not done.success
    [line] = audited(scene)
    assert (line["subject"], line["result"], line["by"]) == (name_of(9), "failed", f"run {done.run_id}")
    assert line["message"] == f"b2: '{name_of(9)}' cannot be copied: neither the spool nor any store has it"


def test_a_base_backup_that_cannot_be_copied(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The audit log has a line for each try on each store."""
    [backup] = scene.catalog.base_backups.all()
    instance.add_dynamic_partitions(KEYS.base_backup_partitions_name, [backup.backup_id])
    for key in scene.keys("r2"):
        if backup.backup_id in key:
            scene.stores["r2"].inner.delete(key)
    done = fill(scene, instance, build_backup_assets(KEYS, STORES), KEYS.base_backup("b2"), backup.backup_id)
    assert not done.success
    [line] = audited(scene)
    assert (line["action"], line["subject"], line["result"]) == ("base backup", backup.backup_id, "failed")
    assert (line["store"], line["by"]) == ("b2", f"run {done.run_id}")
    assert str(line["message"]).startswith(f"base backup '{backup.backup_id}' cannot be refilled on b2: r2: ")
