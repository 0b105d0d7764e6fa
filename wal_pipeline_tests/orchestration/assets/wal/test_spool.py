"""Tests what a person reads of the spool first, and that nothing is said of a spool that nobody could read."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.commands.health.rules import HealthLimits
from wal_pipeline.orchestration.assets.wal.spool import spool_materialization, spool_sentence
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import HealthScene

LIMITS = HealthLimits()


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    made = HealthScene(tmp_path)
    made.archive(1, 2, 3)
    return made


def test_an_empty_spool(scene: HealthScene) -> None:
    """Nothing waits, so each archived file is everywhere."""
    assert spool_sentence(scene.facts(), LIMITS) == ("nothing waits in the spool: each archived file is on every store")


def test_files_that_wait(scene: HealthScene) -> None:
    """The number, the room and the longest wait are what decides whether a person gets up."""
    scene.put_in_spool(4, waited=timedelta(minutes=7))
    scene.put_in_spool(5)
    assert spool_sentence(scene.facts(), LIMITS) == "2 files in the spool (2.0 MiB of 10.0 GiB), the oldest for 7 min"
    found = spool_materialization(KEYS, scene.facts(), LIMITS).metadata
    assert next(iter(found)) == "answer"
    assert (found["waiting_files"].value, found["waiting_mib"].value) == (2, 2.0)
    assert found["r2"].value == "takes copies"


def test_a_spool_that_was_not_looked_at(scene: HealthScene) -> None:
    """A folder that cannot be read is no empty folder."""
    facts = scene.facts()
    assert facts.spool is not None
    broken = replace(facts, spool=replace(facts.spool, files=0, error="Permission denied"))
    assert spool_sentence(broken, LIMITS) == "the spool was not looked at: Permission denied"
    assert "waiting_files" not in spool_materialization(KEYS, broken, LIMITS).metadata
    none = replace(facts, spool=None)
    assert spool_sentence(none, LIMITS) == "the spool was not looked at: PG_WAL_ARCHIVE_DIR is not set"
