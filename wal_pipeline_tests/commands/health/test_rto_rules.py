"""Tests when a restore that would take too long is told, and whether a new base backup would mend that."""

from datetime import timedelta

import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.commands.health.rto_rules import wants_base_backup
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.commands.restore_times import keep_time
from wal_pipeline.text import length
from wal_pipeline_tests.support.health_scene import HealthScene
from wal_pipeline_tests.support.measured_times import measured_drill


def slow(scene: HealthScene, objective_seconds: float | None) -> list[Observation]:
    """Return the observations for an objective."""
    limits = HealthLimits(rto_objective_seconds=objective_seconds)
    return observe(scene.facts(), limits)[AlertKind.RESTORE_SLOW]


@pytest.fixture
def slow_replay(scene: HealthScene) -> HealthScene:
    """Files come back in seconds, and WAL is replayed at 0.05 MiB a second."""
    host = scene.facts().restore_times["r2"].host
    for store in ("r2", "b2"):
        keep_time(scene.catalog, measured_drill(host, stores=(store,), replay_mib=0.05))
    return scene


def test_what_is_not_known_opens_no_alert(scene: HealthScene) -> None:
    """There is no number to compare; that no drill was run has an alert of its own."""
    assert slow(scene, 1.0) == []


def test_a_prediction_below_the_objective_is_well(slow_replay: HealthScene) -> None:
    """So is any where the objective is off."""
    assert slow(slow_replay, 3600.0) == []
    assert slow(slow_replay, None) == []


def test_a_replay_that_takes_too_long_is_mended_by_a_base_backup(slow_replay: HealthScene) -> None:
    """The message says how much it would bring, and the details let the next one be taken earlier."""
    found = slow(slow_replay, 60.0)
    assert [one.subject for one in found] == ["r2", "b2"]
    seconds = slow_replay.facts().restore_times["r2"]
    assert seconds.seconds is not None
    assert seconds.seconds > 120
    assert found[0].message == (
        f"a restore from r2 would take {length(seconds.seconds)}, expected at most 60 s; a new base backup would bring "
        f"it to {length(seconds.without_replay_seconds)}"
    )
    assert wants_base_backup(found[0].details)


def test_files_that_take_too_long_are_not_mended_by_a_base_backup(slow_replay: HealthScene) -> None:
    """Else one would be taken again and again."""
    found = slow(slow_replay, 2.0)
    assert "without any WAL to replay it would be" in found[0].message
    assert found[0].message.endswith(": a new base backup is not enough")
    assert not wants_base_backup(found[0].details)


def test_each_store_is_judged_by_its_own_rate(scene: HealthScene) -> None:
    """The host may lose the fast one."""
    host = scene.facts().restore_times["r2"].host
    keep_time(scene.catalog, measured_drill(host, stores=("r2",)))
    keep_time(scene.catalog, measured_drill(host, stores=("b2",), download_mib=0.1))
    assert [one.subject for one in slow(scene, 600.0)] == ["b2"]


def test_an_old_base_backup_makes_a_restore_slow(slow_replay: HealthScene) -> None:
    """The alert opens with the WAL that has come since, and a new base backup ends it."""
    before = slow_replay.facts().restore_times["r2"].seconds
    assert before is not None
    objective = before + 60.0
    assert slow(slow_replay, objective) == []
    slow_replay.archive(*range(11, 21))
    assert [one.subject for one in slow(slow_replay, objective)] == ["r2", "b2"]
    slow_replay.back_up(20, age=timedelta(minutes=1))
    assert slow(slow_replay, objective) == []
