"""Tests what is said of the shipping of the open segment: nothing that was not looked at is called well."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.commands.health.facts import look_without_catalog
from wal_pipeline.commands.health.reach import ServerLook
from wal_pipeline.commands.health.shipping import (
    HeldWal,
    ShippingHealth,
    ShippingState,
    TailHealth,
    ask_slot,
    behind_text,
    look_at_shipping,
    shipping_sentence,
    tail_sentence,
)
from wal_pipeline.commands.pause import current_pause, pause
from wal_pipeline.errors import CatalogError, PostgresError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.health_scene import NOW, SIZE, STORES, SYSTEM, HealthScene
from wal_pipeline_tests.support.server_facts import facts as server_facts
from wal_pipeline_tests.support.tail_records import GOAL, SEGMENT, SHIPPED, record_shipping, record_tail, ship_well

END = SEGMENT * SIZE + SHIPPED


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    """An archive whose open segment is shipped as promised."""
    made = HealthScene(tmp_path)
    made.archive(*range(1, 11))
    made.back_up(2)
    ship_well(made)
    return made


def look(scene: HealthScene, **server: Any) -> ShippingHealth:
    """Look at the shipping. With any fact of a server, that server was asked."""
    facts = server_facts(system_identifier=SYSTEM, server_at=scene.now, wal_segment_size=SIZE, **server)
    return look_at_shipping(
        scene.catalog.values,
        STORES,
        scene.ship_goal,
        pause=current_pause(scene.catalog, scene.now),
        server=ServerLook(facts) if server else ServerLook(),
        slot=None,
        now=scene.now,
    )


def r2(health: ShippingHealth) -> TailHealth:
    """Return the tail on r2."""
    found = health.tail("r2")
    assert found is not None
    return found


def test_shipping_that_keeps_its_promise_runs(scene: HealthScene) -> None:
    """The sentence has each store, its worst case of the last hour, and the promise."""
    health = look(scene)
    assert health.state is ShippingState.RUNNING
    assert shipping_sentence(health) == (
        "running; r2 0.4 s behind, p99 5.2 s; b2 0.4 s behind, p99 5.2 s; promised 6.0 s"
    )
    assert tail_sentence(r2(health), GOAL) == (
        "r2 is 0.4 s behind; in the last hour p50 2.6 s, p99 5.2 s; promised 6.0 s"
    )


def test_off_is_off(scene: HealthScene) -> None:
    """Records of earlier days do not make it look as if anything ran."""
    scene.ship_goal = None
    health = look(scene)
    assert (health.state, health.tails) == (ShippingState.OFF, ())
    assert shipping_sentence(health) == "off: a lost host costs the commits since the last finished segment"


def test_a_shipper_that_is_silent_is_stopped(scene: HealthScene) -> None:
    """It says once a minute that it runs. Three minutes later each store's tail is stopped too, and grows older."""
    scene.now += timedelta(minutes=5)
    health = look(scene)
    assert (health.state, health.reason) == (ShippingState.STOPPED, "nothing ships since 2026-11-22 11:59:40Z")
    assert (r2(health).state, behind_text(r2(health))) == (ShippingState.STOPPED, "at most 5 min")


def test_a_sign_of_the_future_is_no_sign_of_life(scene: HealthScene) -> None:
    """A clock that was set back must not let a dead shipper run for hours."""
    scene.now -= timedelta(hours=2)
    health = look(scene)
    assert health.state is ShippingState.STOPPED
    assert health.reason == (
        "the shipper's last sign is of 2026-11-22 11:59:40Z, in the future: a clock is or was wrong"
    )


def test_a_shipper_that_never_ran_is_missed_from_the_first_look_on(tmp_path: Path) -> None:
    """The first look writes down when it was, so that a start has some minutes."""
    scene = HealthScene(tmp_path, ship_goal=GOAL)
    assert look(scene).noticed_at == NOW
    scene.now += timedelta(minutes=9)
    health = look(scene)
    assert (health.state, health.noticed_at) == (ShippingState.STOPPED, NOW)
    assert tail_sentence(r2(health), GOAL) == (
        "nothing is shipped to r2 (stopped): nothing has ever shipped the open segment"
    )


def test_each_stop_is_noticed_anew(scene: HealthScene) -> None:
    """A shipper that ran meanwhile ends the first one; a clock that was set back begins it again."""
    scene.now += timedelta(minutes=5)
    assert look(scene).noticed_at == NOW + timedelta(minutes=5)
    record_shipping(scene)
    assert look(scene).noticed_at is None
    scene.now += timedelta(minutes=5)
    assert look(scene).noticed_at == NOW + timedelta(minutes=10)
    scene.now -= timedelta(hours=1)
    assert look(scene).noticed_at == scene.now


def test_what_hinders_the_shipper_is_said(scene: HealthScene) -> None:
    """Such as a data directory that cannot be read."""
    record_shipping(scene, error="'/data/pg_wal' cannot be read by user 'wal'", failing_since=NOW)
    health = look(scene)
    assert (health.state, health.since_at) == (ShippingState.NOT_POSSIBLE, NOW)
    assert shipping_sentence(health).startswith("not possible: '/data/pg_wal' cannot be read by user 'wal'; r2 ")


def test_a_pause_is_no_failure(scene: HealthScene) -> None:
    """A person wanted it."""
    pause(scene.catalog, scene.now, length=timedelta(hours=1), reason="", by="anna")
    scene.now += timedelta(minutes=30)
    health = look(scene)
    assert (health.state, r2(health).state) == (ShippingState.PAUSED, ShippingState.PAUSED)
    assert not health.state.is_wrong


def test_one_store_fails_alone(scene: HealthScene) -> None:
    """The other one's tail is as well as before; what is missing is at most as old as the last complete moment."""
    record_shipping(scene, flushed_lsn=Lsn(END + 100))
    record_tail(scene, "r2", error="r2: it is down", failing_since=NOW, complete_at=NOW - timedelta(seconds=90))
    record_tail(scene, "b2", shipped_lsn=Lsn(END + 100))
    health = look(scene)
    assert (health.state, health.reason) == (ShippingState.FAILING, "r2: r2: it is down")
    assert [(one.state.value, behind_text(one)) for one in health.tails] == [
        ("failing", "at most 90 s"),
        ("running", "0.4 s"),
    ]


def test_a_store_that_hangs_without_an_error_is_behind(scene: HealthScene) -> None:
    """A request that never ends is no error. The server's position tells: it flushed more than the store has."""
    record_shipping(scene, flushed_lsn=Lsn(END + 1))
    record_tail(scene, "r2", complete_at=NOW - timedelta(minutes=10))
    assert behind_text(r2(look(scene))) == "at most 10 min"


def test_an_idle_server_leaves_nothing_behind(scene: HealthScene) -> None:
    """Hours after the last commit nothing is missing, which the server's own position proves."""
    record_tail(scene, "r2", complete_at=NOW - timedelta(hours=9))
    assert behind_text(r2(look(scene, wal_lsn=Lsn(END)))) == "0 s"
    assert behind_text(r2(look(scene, wal_lsn=Lsn(END + 9), idle_since_lsn=Lsn(END)))) == "0 s"


@pytest.mark.parametrize(
    "server",
    [{"wal_lsn": Lsn(END), "in_recovery": True}, {"wal_lsn": Lsn(END), "timeline": 2}, {"wal_lsn": Lsn(END + 1)}],
)
def test_only_the_writer_proves_that_nothing_is_missing(scene: HealthScene, server: dict[str, Any]) -> None:
    """A standby, another timeline and a server that is further prove nothing: the record counts."""
    assert behind_text(r2(look(scene, **server))) == "0.4 s"


def test_the_tail_of_another_cluster_does_not_count(scene: HealthScene) -> None:
    """After pg_upgrade the records of the cluster before still lie there."""
    record_tail(scene, "r2", system_identifier=1)
    found = r2(look(scene))
    assert (found.tail, found.reason, behind_text(found)) == (None, "nothing was shipped there yet", "not known")


def test_a_late_hour_is_late_and_an_old_tail_needs_a_person(scene: HealthScene) -> None:
    """One slow upload in the last hour is no more than that; half of them, or a tail that is old now, are."""
    tail = r2(look(scene))
    assert tail.tail is not None
    cases = {
        "well": tail,
        "p99": replace(tail, tail=replace(tail.tail, behind_p99_seconds=6.1)),
        "p50": replace(tail, tail=replace(tail.tail, behind_p99_seconds=9.0, behind_p50_seconds=6.1)),
        "now": replace(tail, behind_seconds=6.1),
        "long": replace(tail, behind_seconds=66.1, is_at_most=True),
    }
    assert {name: (one.was_late(GOAL), one.is_late(GOAL)) for name, one in cases.items()} == {
        "well": (False, False),
        "p99": (True, False),
        "p50": (True, True),
        "now": (True, False),
        "long": (False, True),
    }


def test_without_the_catalog_nothing_is_known(scene: HealthScene) -> None:
    """It is not called off, and not well."""
    facts = look_without_catalog(scene.sources, "main", CatalogError("it is gone"))
    assert shipping_sentence(facts.shipping) == "not known: the records cannot be read; promised 6.0 s"


def test_a_slot_that_cannot_be_asked_is_not_known() -> None:
    """The error is a part of the answer, so that nobody takes it for a slot that keeps nothing."""

    def refuse() -> HeldWal:
        raise PostgresError("the server does not answer")

    assert ask_slot(refuse) == HeldWal("", None, "the server does not answer")
    assert ask_slot(None) is None
