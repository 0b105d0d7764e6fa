"""Verification of lists of relations: what is damaged or lacks on one store is copied from another one."""

import json
from pathlib import Path

import pytest

from wal_pipeline.archive.format.keys import moment_name
from wal_pipeline.archive.records import Codec
from wal_pipeline.cli.verify import verification_as_json
from wal_pipeline.commands.verify.results import FaultKind, ListTally
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.kept_lists import list_at, put
from wal_pipeline_tests.support.upkeep_scene import DAY, LAYOUT, UpkeepScene


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    """Eight days with two base backups, and a list of each of the last three days on both stores."""
    made = UpkeepScene(tmp_path)
    made.run_for(8)
    for store in made.stores.values():
        for days in (3, 2, 1):
            place = ClusterStore(store.inner, LAYOUT)
            put(place, list_at(place, made.now - days * DAY))
    return made


def key_of(scene: UpkeepScene, days: int) -> str:
    """Return the key of the list of so many days ago."""
    return LAYOUT.relations_key(moment_name(scene.now - days * DAY), Codec.ZSTD, encrypted=False)


@pytest.mark.parametrize("share", [None, 1.0])
def test_whole_lists_are_counted(scene: UpkeepScene, share: float | None) -> None:
    """By names and sizes, and read to their content where that is asked for; their bytes count as stored."""
    done = scene.verify(share=share)
    stored = sum(len(scene.read("r2", key_of(scene, days))) for days in (1, 2, 3))
    read, read_bytes = (0, 0) if share is None else (3, stored)
    assert done.list_tallies["r2"] == ListTally(3, stored, read, read_bytes)
    assert done.list_faults == ()
    assert done.is_right
    assert scene.catalog.values.get("relations/r2") == {"stored_bytes": stored}


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_what_one_store_has_whole_heals_the_other(scene: UpkeepScene, damage: str) -> None:
    """A damaged list is replaced, a missing one comes back, and both are written down."""
    key = key_of(scene, 2)
    data = scene.read("r2", key)
    if damage == "gone":
        scene.stores["b2"].inner.delete(key)
    else:
        scene.replace_object("b2", key, data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    expected = {"gone": FaultKind.MISSING, "cut": FaultKind.TRUNCATED, "flipped": FaultKind.CORRUPT}[damage]
    found = scene.verify(share=1.0)
    assert [(one.store, one.key, one.kind, one.repaired_from) for one in found.list_faults] == [
        ("b2", key, expected, None)
    ]
    assert not found.is_right
    done = scene.verify(share=1.0, repair=True)
    assert [one.repaired_from for one in done.list_faults] == ["r2"]
    assert done.is_right
    assert scene.read("b2", key) == data
    assert scene.verify(share=1.0).list_faults == ()
    lines = [json.loads(line) for line in scene.audit.path.read_text().splitlines()]
    assert [(one["subject"], one["store"], one["source"]) for one in lines if one["action"] == "repair"] == [
        (key, "b2", "r2")
    ]
    json.dumps(verification_as_json(done))


def test_what_no_store_has_whole_is_told_and_stays(scene: UpkeepScene) -> None:
    """Nothing is removed, nothing else waits for it, and an alert says what lacks."""
    key = key_of(scene, 1)
    for store in ("r2", "b2"):
        scene.replace_object(store, key, b"something else, as long as you like")
    done = scene.verify(share=1.0, repair=True)
    assert [(one.store, one.repair_error) for one in done.list_faults] == [
        (store, "no store has a good copy") for store in ("r2", "b2")
    ]
    assert key in scene.keys("r2") & scene.keys("b2")
    assert not done.open_faults
    told = [alert.message for alert in scene.catalog.alerts.active()]
    assert any("1 fault in the lists of relations: tables may be shown by their numbers" in one for one in told)


def test_a_list_of_a_newer_program_is_never_replaced(scene: UpkeepScene) -> None:
    """What does not say what it is may be better than what we know."""
    key = key_of(scene, 1)
    inner = scene.stores["b2"].inner
    inner.delete(key)
    inner.put_if_absent(key, Body.of(b"of a later format"), {"wal-format": "2"})
    done = scene.verify(share=1.0, repair=True)
    assert [(one.kind, one.repaired_from) for one in done.list_faults] == [(FaultKind.UNREADABLE, None)]
    assert scene.read("b2", key) == b"of a later format"


def test_lists_from_before_a_stores_base_backups_are_not_missed(scene: UpkeepScene) -> None:
    """They may have expired there; the one that was in force when the oldest began is wanted."""
    r2 = ClusterStore(scene.stores["r2"].inner, LAYOUT)
    for days in (30, 20):
        put(r2, list_at(r2, scene.now - days * DAY))
    done = scene.verify(repair=True)
    assert [(one.store, one.moment, one.kind) for one in done.list_faults] == [
        ("b2", moment_name(scene.now - 20 * DAY), FaultKind.MISSING)
    ]
    assert done.is_right
