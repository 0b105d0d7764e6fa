"""The verdicts of the asset checks: what is an error, what a warning, and what each says."""

from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.catalog.drills import DrillRecord
from wal_pipeline.catalog.gaps import GapAcknowledgement
from wal_pipeline.commands.health.asset_checks import (
    WINDOW_CHECKS,
    CheckVerdict,
    drill_passed,
    no_gap,
    tail_on_time,
    window_restorable,
    window_whole,
)
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.commands.pause import pause
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.health_scene import NOW, SIZE, SYSTEM, HealthScene, name
from wal_pipeline_tests.support.tail_records import SEGMENT, SHIPPED, record_shipping, record_tail, ship_well

LIMITS = HealthLimits()


def b2(scene: HealthScene, check: object) -> tuple[bool, bool, str]:
    """Return whether a check passes for b2, whether it only warns, and what it says."""
    facts = scene.facts()
    verdict = check(facts, LIMITS, facts.stores[1])  # type: ignore[operator]
    assert isinstance(verdict, CheckVerdict)
    return verdict.passed, verdict.is_warning, verdict.message


def test_a_whole_archive_passes_all_window_checks(scene: HealthScene) -> None:
    """No gap of any kind."""
    assert b2(scene, no_gap) == (True, False, "no open gap")
    assert all(b2(scene, check)[0] for check in WINDOW_CHECKS.values())


def test_an_open_gap_is_an_error_with_its_cure(scene: HealthScene) -> None:
    """The moments, the segments and the store that has them."""
    scene.catalog.files.remove_copy(SYSTEM, [name(5), name(6)], "b2")
    said = "1 open gap from 2026-11-22 10:58:30 to 11:28:10, 2 segments, refillable from r2"
    assert b2(scene, no_gap) == (False, False, said)
    assert b2(scene, window_whole) == (False, False, said)
    assert b2(scene, window_restorable)[0]


def test_a_past_gap_is_not_no_gap(scene: HealthScene) -> None:
    """Four segments are missing, and a later base backup made them past: a person should know."""
    scene.catalog.files.remove_copy(SYSTEM, [name(n) for n in (4, 5, 6, 7)], "b2")
    scene.back_up(8, timedelta(minutes=15))
    assert b2(scene, no_gap) == (
        False,
        True,
        "no open gap; 1 past gap from 2026-11-22 10:48:30 to 11:38:10, 4 segments, refillable from r2",
    )


def test_a_segment_in_the_spool_is_no_gap(scene: HealthScene) -> None:
    """Later ones have overtaken it; neither a check nor an alert calls it a gap."""
    scene.catalog.files.remove_copy(SYSTEM, [name(9)], "b2")
    scene.put_in_spool(9)
    passed, _, said = b2(scene, no_gap)
    assert (passed, said.split(" from ")[0]) == (True, "no open gap; 1 arriving gap")
    assert scene.facts().windows.open_gaps("b2") == ()
    assert not any(observe(scene.facts(), LIMITS).values())


def test_an_accepted_gap_passes_and_is_told(scene: HealthScene) -> None:
    """A person knows it."""
    scene.catalog.files.remove_copy(SYSTEM, [name(5)], "b2")
    scene.catalog.gaps.acknowledge(GapAcknowledgement(SYSTEM, 1, name(5), name(5), "me", "lost", NOW))
    passed, _, said = b2(scene, no_gap)
    assert (passed, said.startswith("no open gap; 1 accepted gap from ")) == (True, True)


def test_a_store_without_a_base_backup_is_an_error(scene: HealthScene) -> None:
    """Nothing can be restored from there."""
    scene.catalog.base_backups.remove_copy(SYSTEM, scene.catalog.base_backups.all()[0].backup_id, "b2")
    assert b2(scene, window_restorable) == (
        False,
        False,
        "nothing can be restored from b2: no base backup is recorded there",
    )
    assert b2(scene, window_whole)[:2] == (False, False)


def test_the_first_drill_is_no_error_before_it_is_due(scene: HealthScene) -> None:
    """While no alert says that it is missing, the check only warns; then both say it."""
    assert b2(scene, drill_passed) == (False, True, "no drill yet, the first is due by 2026-12-27")
    assert not any(observe(scene.facts(), LIMITS).values())
    scene.now += timedelta(days=36)
    assert b2(scene, drill_passed) == (False, False, "never drilled, though the first was due by 2026-12-27")


def test_a_failed_drill_is_an_error(scene: HealthScene) -> None:
    """It failed, whenever it was; one that passed is fine."""
    at = NOW - timedelta(days=1)
    scene.catalog.drills.record(DrillRecord("d", "b2", "end", at, at, False, {}))
    assert b2(scene, drill_passed)[:2] == (False, False)
    scene.catalog.drills.record(DrillRecord("e", "b2", "end", at, NOW, True, {}))
    assert b2(scene, drill_passed)[0]


def test_a_drill_without_a_base_backup_warns(tmp_path: Path) -> None:
    """There is nothing to drill yet."""
    made = HealthScene(tmp_path)
    made.archive(1)
    assert b2(made, drill_passed) == (False, True, "no drill yet: there is no base backup to restore")


def tail(scene: HealthScene) -> tuple[bool, bool, str]:
    """Return whether the check of b2's tail passes, whether it only warns, and what it says."""
    facts = scene.facts()
    verdict = tail_on_time(facts, facts.stores[1])
    return verdict.passed, verdict.is_warning, verdict.message


def test_a_tail_within_its_promise_passes(scene: HealthScene) -> None:
    """Its numbers are shown beside the sentence."""
    ship_well(scene)
    assert tail(scene) == (True, False, "b2 is 0.4 s behind; in the last hour p50 2.6 s, p99 5.2 s; promised 6.0 s")
    facts = scene.facts()
    assert tail_on_time(facts, facts.stores[1]).numbers == {
        "seconds_behind": 0.4,
        "seconds_behind_p50": 2.6,
        "seconds_behind_p99": 5.2,
        "pieces": 2,
        "stored_bytes": 1400,
    }


@pytest.mark.parametrize(
    ("changed", "is_warning"),
    [
        ({"behind_p99_seconds": 7.0}, True),
        ({"behind_seconds": 7.0}, True),
        ({"behind_p99_seconds": 9.0, "behind_p50_seconds": 7.0}, False),
        ({"behind_seconds": 70.0}, False),
        ({"error": "b2: it is down"}, True),
        ({"conflict": "another history"}, False),
        ({"behind_seconds": None}, True),
    ],
)
def test_a_tail_that_is_late_does_not_pass(scene: HealthScene, changed: dict[str, object], is_warning: bool) -> None:
    """An outage of an hour that is over warns; what is late now by more than a minute, or in half the cases, is red."""
    ship_well(scene)
    record_tail(scene, "b2", **changed)
    assert tail(scene)[:2] == (False, is_warning)


def test_a_tail_that_nobody_ships_is_red_and_never_green(scene: HealthScene) -> None:
    """Stopped and not possible are red; off, paused and before the first piece it warns."""
    assert tail(scene) == (False, True, "the open segment is not shipped (off)")
    ship_well(scene)
    record_tail(scene, "b2", system_identifier=1)
    assert tail(scene)[:2] == (False, True)
    record_tail(scene, "b2")
    record_shipping(scene, error="'/data' cannot be read")
    assert tail(scene)[:2] == (False, False)
    record_shipping(scene, seen_at=NOW - timedelta(minutes=10))
    assert tail(scene)[:2] == (False, False)
    pause(scene.catalog, scene.now, length=timedelta(hours=1), reason="", by="anna")
    assert tail(scene)[:2] == (False, True)


def test_a_store_that_hangs_gets_red(scene: HealthScene) -> None:
    """Without any error: the server flushed what the store lacks for minutes."""
    ship_well(scene)
    record_shipping(scene, flushed_lsn=Lsn(SEGMENT * SIZE + SHIPPED + 1))
    record_tail(scene, "b2", complete_at=NOW - timedelta(minutes=3))
    passed, is_warning, said = tail(scene)
    assert (passed, is_warning) == (False, False)
    assert said.startswith("b2 is at most 3 min behind")
