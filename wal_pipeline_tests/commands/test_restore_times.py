"""Tests that measured times are kept in the catalog, and that a restore goes on without it."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from wal_pipeline.archive.restore_time.measure import RestoreWork
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.restore_times import (
    KnownTimes,
    RestoreTimes,
    keep_time,
    measured_stores,
    read_times,
)
from wal_pipeline.errors import CatalogError
from wal_pipeline_tests.support.health_scene import HealthScene, healthy_scene
from wal_pipeline_tests.support.measured_times import MEASURED_AT, MIB, measured_drill

WORK = RestoreWork(("r2",), 100 * MIB, 400 * MIB, 10 * MIB)


@pytest.fixture
def scene(tmp_path_factory: pytest.TempPathFactory) -> HealthScene:
    """A catalog."""
    return healthy_scene(tmp_path_factory.mktemp("scene"))


def test_times_are_read_back_in_the_order_of_time(scene: HealthScene) -> None:
    """Also two of one second."""
    later, sooner = measured_drill("db1"), measured_drill("db1", at=MEASURED_AT - timedelta(days=1))
    for one in (later, sooner, replace(later, host="db2")):
        keep_time(scene.catalog, one)
    found = read_times(scene.catalog).measured
    assert found[0] == sooner
    assert {one.host for one in found[1:]} == {"db1", "db2"}


def test_the_oldest_of_very_many_are_forgotten(scene: HealthScene) -> None:
    """A drill an hour for a year does not fill the catalog."""
    for hours in range(203):
        keep_time(scene.catalog, measured_drill("db1", at=MEASURED_AT + timedelta(hours=hours)))
    found = read_times(scene.catalog).measured
    assert (len(found), found[0].finished_at) == (200, MEASURED_AT + timedelta(hours=3))


def test_what_cannot_be_read_is_passed_over(scene: HealthScene) -> None:
    """A later version may write otherwise."""
    keep_time(scene.catalog, measured_drill("db1"))
    scene.catalog.values.put("restore_time/20270101T000000Z-1", {"host": "db1"})
    scene.catalog.values.put("restore_time/20270101T000000Z-2", "soon")
    assert read_times(scene.catalog).measured == (measured_drill("db1"),)


def test_a_restore_is_predicted_and_then_kept(scene: HealthScene) -> None:
    """What this host measured is what it predicts from."""
    times = RestoreTimes(lambda: scene.catalog, "db1", lambda: scene.now)
    assert (times.forecast(WORK).seconds, times.forecast(WORK).unread) == (None, None)
    assert times.keep(measured_drill("db1")) is None
    found = times.forecast(WORK)
    assert found.seconds == pytest.approx(1.0 + 1.0 + 0.8 + 0.4 + 1.0 + 1.0 + 1.0)
    assert not found.is_guess


def test_without_a_catalog_it_is_not_known() -> None:
    """A host that was set up just now restores all the same, and the plan says why it knows no time."""

    def refuse() -> Catalog:
        raise CatalogError("this host has no catalog")

    times = RestoreTimes(refuse, "db1", lambda: MEASURED_AT)
    found = times.forecast(WORK)
    assert (found.seconds, found.unread) == (
        None,
        "the records of earlier restores cannot be read: this host has no catalog",
    )
    assert times.keep(measured_drill("db1")) == "this host has no catalog"


def test_a_catalog_that_does_not_answer_delays_nothing() -> None:
    """It may lie on the server that was lost."""
    ended = threading.Event()

    def hang() -> Catalog:
        ended.wait(60)
        raise CatalogError("too late")

    found = RestoreTimes(hang, "db1", lambda: MEASURED_AT, answer_seconds=0.01).forecast(WORK)
    ended.set()
    assert found.unread == "the records of earlier restores cannot be read: the catalog did not answer within 0.01 s"


def test_unread_times_predict_nothing() -> None:
    """Though some are known."""
    known = KnownTimes((measured_drill("db1"),), unread="disk on fire")
    assert (known.forecast(WORK, "db1").seconds, known.forecast(WORK, "db1").unread) == (None, "disk on fire")


@pytest.mark.parametrize(
    ("received", "stores"),
    [
        ({"r2": 100, "b2": 100}, ("r2", "b2")),
        ({"r2": 1000, "b2": 50}, ("r2",)),
        ({"r2": 0, "b2": 50}, ("b2",)),
        ({}, ("r2", "b2")),
        ({"r2": 0, "b2": 0}, ("r2", "b2")),
    ],
)
def test_the_stores_that_gave_the_bytes(received: dict[str, int], stores: tuple[str, ...]) -> None:
    """A few objects that one store lacked do not make a rate of both; what nobody counted may be of any."""
    assert measured_stores(("r2", "b2"), received) == stores
