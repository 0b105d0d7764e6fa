"""Tests that the results of verifications are kept for other processes: the last one, and the last deep one."""

from pathlib import Path

import pytest

from wal_pipeline.commands.verify.last_results import read_results, results_of
from wal_pipeline.commands.verify.results import ItemKind
from wal_pipeline_tests.support.damage import damage
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_scene import DAY, UpkeepScene


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    made = UpkeepScene(tmp_path)
    made.run_for(4)
    return made


def test_nothing_is_kept_before_the_first(scene: UpkeepScene) -> None:
    """Where nobody has verified yet, there is no result, and no screen shows one."""
    assert read_results(scene.catalog) == ()


def test_what_is_kept_is_what_was_found(scene: UpkeepScene) -> None:
    """Each store has a result for files and one for base backups, and only the damaged one is not right."""
    damage(scene, "b2", name_of(3), "deleted")
    done = scene.verify()
    kept = read_results(scene.catalog)
    assert kept == tuple(results_of(done))
    wrong = [one for one in kept if not one.is_right]
    assert [(one.store, one.kind, one.faults, one.lost) for one in wrong] == [("b2", ItemKind.WAL_FILE, 1, 0)]
    assert wrong[0].sentence == f"1 copies are missing or damaged; first: b2: '{name_of(3)}' is not there"


def test_the_last_deep_one_stays_beside_a_later_one(scene: UpkeepScene) -> None:
    """A comparison of names and sizes says nothing about content."""
    deep = scene.verify(share=1.0)
    scene.now += DAY
    plain = scene.verify()
    kept = read_results(scene.catalog)
    assert [one for one in kept if one.is_deep] == list(results_of(deep))
    assert [one for one in kept if not one.is_deep] == list(results_of(plain))
