"""Tests that the job verify_archive answers asset checks, and materializes the copies that it refills."""

from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline_tests.support.damage import damage
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_pipeline import KEYS, verify, verify_deep
from wal_pipeline_tests.support.upkeep_scene import UpkeepScene


@pytest.fixture
def scene(tmp_path: Path, instance: dg.DagsterInstance) -> UpkeepScene:
    made = UpkeepScene(tmp_path)
    made.run_for(6, backup_every=3)
    instance.add_dynamic_partitions(KEYS.wal_partitions_name, [name_of(number) for number in range(1, 7)])
    return made


def verdicts(done: dg.ExecuteInProcessResult) -> dict[str, bool]:
    found = done.get_asset_check_evaluations()
    return {f"{'/'.join(one.asset_key.path[1:])} {one.check_name}": one.passed for one in found}


ASSETS = ("wal_segment/r2", "base_backup/r2", "wal_segment/b2", "base_backup/b2")


def test_the_daily_one_answers_the_checks_of_names_and_sizes(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """The daily verification leaves the verdict of the last deep one unchanged."""
    done = verify(scene, instance)
    assert verdicts(done) == {f"{asset} names_and_sizes": True for asset in ASSETS}


def test_the_deep_one_answers_all(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """A deep verification passes all checks where the content is right."""
    done = verify(scene, instance, deep=True, share=1.0)
    names = ("names_and_sizes", "content")
    assert verdicts(done) == {f"{asset} {name}": True for asset in ASSETS for name in names}


def test_damage_fails_the_check_of_its_store_only(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """Only the damaged store's check fails, with numbers and the names of the first faults."""
    damage(scene, "b2", name_of(3), "bit turned")
    done = verify_deep(scene, instance)
    assert {name for name, passed in verdicts(done).items() if not passed} == {
        "wal_segment/b2 names_and_sizes",
        "wal_segment/b2 content",
    }
    [failed] = [one for one in done.get_asset_check_evaluations() if not one.passed and one.check_name == "content"]
    assert (failed.metadata["faults"].value, failed.metadata["lost"].value) == (1, 0)
    assert failed.description is not None
    assert failed.description.startswith("1 copies are missing or damaged; first: b2: object 'main/")


def test_what_is_healed_is_a_materialization(scene: UpkeepScene, instance: dg.DagsterInstance) -> None:
    """By default a run repairs: its checks pass, and the partition gets a record on the healed store only."""
    damage(scene, "b2", name_of(3), "deleted")
    done = verify(scene, instance)
    assert all(verdicts(done).values())
    materialized = [one.asset_key.path[-1] for one in done.get_asset_materialization_events() if one.asset_key]
    assert materialized == ["b2"]
    assert instance.get_materialized_partitions(KEYS.wal_segment("b2")) == {name_of(3)}
