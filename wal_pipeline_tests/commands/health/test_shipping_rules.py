"""Tests the alerts about the open segment: one for each cause, with the way out, and each ends by itself."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation, default_severity
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.health.facts import look_at_everything
from wal_pipeline.commands.health.reach import ServerLook
from wal_pipeline.commands.health.rules import HealthLimits, observe
from wal_pipeline.commands.health.shipping import HeldWal
from wal_pipeline.commands.health.watch import settle
from wal_pipeline.commands.pause import pause, resume
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.health_scene import NOW, SIZE, HealthScene
from wal_pipeline_tests.support.tail_records import GOAL, SEGMENT, SHIPPED, record_shipping, record_tail, ship_well

LIMITS = HealthLimits()
MINUTE = timedelta(minutes=1)


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    """An archive whose open segment is shipped as promised."""
    made = HealthScene(tmp_path)
    made.archive(*range(1, 11))
    made.back_up(2)
    ship_well(made)
    return made


def seen(scene: HealthScene) -> dict[AlertKind, list[Observation]]:
    """Return what needs a person, by its kind."""
    return {kind: found for kind, found in observe(scene.facts(), LIMITS).items() if found}


def fall_behind(scene: HealthScene, store: str, *, by: timedelta, error: str | None = "r2: it is down") -> None:
    """Let a store lack what the server flushed, for so long."""
    record_shipping(scene, flushed_lsn=Lsn(SEGMENT * SIZE + SHIPPED + 100))
    behind = {"complete_at": scene.now - by, "error": error, "failing_since": scene.now - by if error else None}
    record_tail(scene, store, **behind)


def test_what_is_shipped_as_promised_needs_nobody(scene: HealthScene) -> None:
    """There is no alert."""
    assert seen(scene) == {}


def test_a_tail_that_is_older_than_its_promise(scene: HealthScene) -> None:
    """The alert names store, age, promise, since when, why, and what to type; the other store has none."""
    fall_behind(scene, "r2", by=10 * MINUTE)
    record_tail(scene, "b2", shipped_lsn=Lsn(SEGMENT * SIZE + SHIPPED + 100))
    assert seen(scene) == {
        AlertKind.TAIL_OLD: [
            Observation(
                "r2",
                "the newest commits are missing there for at most 10 min, promised 6 s, since 2026-11-22 11:50:00Z: "
                "r2: it is down; 'wal-pipeline check' tries it",
            )
        ]
    }


def test_a_slow_store_is_told_too(scene: HealthScene) -> None:
    """Half of the hour's commits came too late, though nothing fails."""
    record_tail(scene, "b2", behind_p50_seconds=14.0, behind_p99_seconds=31.0)
    [found] = seen(scene)[AlertKind.TAIL_OLD]
    assert found.message.startswith("half of the last hour's commits came after 14 s or more, promised 6 s, since ")
    assert found.message.endswith("the store is slow; 'wal-pipeline check' tries it")


def test_an_alert_ends_by_itself(scene: HealthScene) -> None:
    """The first look at which the tail is as young as promised again resolves it, whatever the last hour was like."""
    fall_behind(scene, "r2", by=10 * MINUTE)
    settle(scene.catalog, observe(scene.facts(), LIMITS), scene.now)
    assert [(one.kind, one.subject) for one in scene.catalog.alerts.active()] == [(AlertKind.TAIL_OLD, "r2")]
    for store in ("r2", "b2"):
        record_tail(scene, store, shipped_lsn=Lsn(SEGMENT * SIZE + SHIPPED + 100), behind_p99_seconds=590.0)
    settle(scene.catalog, observe(scene.facts(), LIMITS), scene.now)
    assert scene.catalog.alerts.active() == []


def test_a_store_that_is_down_has_one_alert(scene: HealthScene) -> None:
    """Its own: neither its copies nor its tail repeat it."""
    fall_behind(scene, "r2", by=10 * MINUTE)
    record_tail(scene, "b2", shipped_lsn=Lsn(SEGMENT * SIZE + SHIPPED + 100))
    scene.catalog.stores.save_state(StoreState("r2", consecutive_failures=3, last_error="r2: it is down"))
    assert set(seen(scene)) == {AlertKind.STORE_DOWN}


def test_two_histories_are_critical(scene: HealthScene) -> None:
    """The alert says what may have happened, and what goes on; the age of that tail is no alert of its own."""
    fall_behind(scene, "r2", by=10 * MINUTE, error=None)
    record_tail(scene, "b2", shipped_lsn=Lsn(SEGMENT * SIZE + SHIPPED + 100))
    record_tail(scene, "r2", conflict="piece 'x' is there with other content", complete_at=NOW - 10 * MINUTE)
    assert seen(scene) == {
        AlertKind.TAIL_CONFLICT: [
            Observation(
                "r2",
                "piece 'x' is there with other content: two servers ship under one cluster name, or this one went "
                "back in time; nothing more of this segment is shipped there, and whole segments go on",
            )
        ]
    }
    assert default_severity(AlertKind.TAIL_CONFLICT).value == "critical"


def test_shipping_that_is_not_possible_is_told_once(scene: HealthScene) -> None:
    """One alert, not one for each store; it has the reason, and how to switch shipping off. A start has minutes."""
    reason = "'/data/pg_wal' cannot be read by user 'wal'"
    record_shipping(scene, error=reason, failing_since=NOW - MINUTE)
    assert seen(scene) == {}
    record_shipping(scene, error=reason, failing_since=NOW - 10 * MINUTE)
    assert seen(scene) == {
        AlertKind.NOT_SHIPPING: [
            Observation(
                "shipping",
                f"the open segment cannot be shipped since 2026-11-22 11:50:00Z: {reason}; "
                "WAL_PIPELINE_SHIP_INTERVAL_SECONDS=off switches it off",
            )
        ]
    }


def test_a_shipper_that_stopped_is_told_once(scene: HealthScene) -> None:
    """One alert says how to start it, after some minutes: the host, or Dagster, may have started just now."""
    record_shipping(scene, seen_at=NOW - 10 * MINUTE)
    assert seen(scene) == {}
    scene.now += 4 * MINUTE
    [found] = seen(scene).pop(AlertKind.NOT_SHIPPING)
    assert set(seen(scene)) == {AlertKind.NOT_SHIPPING}
    assert found.message == (
        "nothing ships since 2026-11-22 11:50:00Z: start Dagster's daemon or 'wal-pipeline ship'; "
        "WAL_PIPELINE_SHIP_INTERVAL_SECONDS=off switches it off"
    )


def test_the_end_of_a_pause_opens_no_alert(scene: HealthScene) -> None:
    """Nothing was shipped for an hour, and a run begins within seconds: nobody has to look."""
    pause(scene.catalog, scene.now, length=timedelta(hours=1), reason="", by="anna")
    scene.now += timedelta(minutes=59)
    scene.facts()
    resume(scene.catalog, scene.now)
    assert AlertKind.NOT_SHIPPING not in seen(scene)


def test_a_new_installation_is_not_neglect(tmp_path: Path) -> None:
    """Before anything is archived, and for some minutes after the first look, no shipper is missed."""
    scene = HealthScene(tmp_path, ship_goal=GOAL)
    scene.facts()
    scene.now += 10 * MINUTE
    assert AlertKind.NOT_SHIPPING not in seen(scene)
    scene.archive(*range(1, 11))
    assert AlertKind.NOT_SHIPPING in seen(scene)


def test_a_pause_opens_nothing_about_shipping(scene: HealthScene) -> None:
    """The pause is an alert by itself."""
    pause(scene.catalog, scene.now, length=timedelta(hours=1), reason="", by="anna")
    scene.now += 30 * MINUTE
    assert {AlertKind.NOT_SHIPPING, AlertKind.TAIL_OLD} & set(seen(scene)) == set()


def test_a_server_that_does_not_answer_has_its_own_alert(scene: HealthScene) -> None:
    """It commits nothing meanwhile: that its WAL is not shipped would be a second alert for one cause."""
    scene.now += timedelta(hours=1)
    record_shipping(scene, seen_at=scene.now, error="the server does not answer", failing_since=scene.now - 40 * MINUTE)
    facts = replace(scene.facts(), server=ServerLook(error="connection refused"))
    found = {kind for kind, causes in observe(facts, LIMITS).items() if causes}
    assert AlertKind.NO_NEW_WAL in found
    assert AlertKind.NOT_SHIPPING not in found


@pytest.mark.parametrize(("held", "is_told"), [(2**30 - 1, False), (3 * 2**30, True)])
def test_a_slot_that_holds_much_wal(scene: HealthScene, held: int, is_told: bool) -> None:
    """It fills the server's own disk."""
    scene.slot = lambda: HeldWal("wal_pipeline_main", held)
    if is_told:
        scene.ship_goal = None  # a slot that nothing uses any more keeps WAL all the same
    found = seen(scene).get(AlertKind.SLOT_HOLDS_WAL, [])
    assert [one.subject for one in found] == ["wal_pipeline_main"] * is_told
    assert all("keeps 3.0 GiB of WAL for slot 'wal_pipeline_main'" in one.message for one in found)


def test_a_slot_that_could_not_be_asked_leaves_its_alert_as_it_is(scene: HealthScene) -> None:
    """No answer is no proof that the slot holds nothing."""
    scene.slot = lambda: HeldWal("wal_pipeline_main", None, "the server does not answer")
    assert AlertKind.SLOT_HOLDS_WAL not in observe(look_at_everything(scene.sources), LIMITS)
