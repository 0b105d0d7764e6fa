"""Expiry of lists of relations on each store, as its own base backups need them."""

from pathlib import Path

import pytest

from wal_pipeline.cli.expire import expiry_as_json
from wal_pipeline.errors import ObjectLockedError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.kept_lists import list_at, put
from wal_pipeline_tests.support.upkeep_scene import DAY, LAYOUT, UpkeepScene
from wal_pipeline_tests.support.versioned_folder import VersionedFolder


def lists_on(scene: UpkeepScene, store: str) -> set[str]:
    return {key for key in scene.keys(store) if key.startswith(LAYOUT.relations_root)}


def archive(scene: UpkeepScene) -> dict[int, str]:
    """Let 24 days pass with a list each day, taken an hour before that day's base backup; return the keys by day."""
    keys = {}
    for number in range(1, 25):
        for store in scene.stores.values():
            place = ClusterStore(store.inner, LAYOUT)
            keys[number] = put(place, list_at(place, scene.now - DAY / 24))
        scene.run_for(1, backup_every=1 if number % 4 == 1 else 100, begin=number)
    return keys


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    return UpkeepScene(tmp_path)


def test_lists_go_with_the_base_backups_and_are_written_down(scene: UpkeepScene) -> None:
    """The list of an hour before the oldest base backup that stays is the oldest that stays."""
    keys = archive(scene)
    scene.verify()
    done = scene.expirer().expire()
    assert done.is_complete, [store.problems for store in done.stores]
    oldest = min(scene.backups("r2"))
    days = sorted(number for number, key in keys.items() if key in lists_on(scene, "r2"))
    assert days == list(range(days[0], 25))
    before = LAYOUT.parse_relations_key(keys[days[0]])
    after = LAYOUT.parse_relations_key(keys[days[1]])
    assert before is not None and after is not None
    assert before.moment < oldest[:16] < after.moment
    removed = done.stores[0].removed
    assert removed is not None and removed.lists == days[0] - 1 > 0
    assert scene.audit.path.read_text().count('"relations/') == 2 * removed.lists
    assert expiry_as_json(done)["stores"][0]["removed"]["lists"] == removed.lists
    again = scene.expirer().plan().stores[0].plan.plan
    assert again is not None and not again.expire


def test_a_list_that_is_locked_stays_and_is_told(scene: UpkeepScene) -> None:
    """The store's own rules count; the rest goes on."""
    keys = archive(scene)
    scene.verify()

    def lock(call: str, key: str) -> None:
        if call == "delete" and key == keys[1]:
            raise ObjectLockedError("r2", f"object '{key}' is locked")

    scene.stores["r2"].before = lock
    done = scene.expirer().expire()
    assert keys[1] in lists_on(scene, "r2")
    assert keys[1] not in lists_on(scene, "b2")
    assert [store.problems for store in done.stores if store.plan.store == "r2"] == [
        (f"r2: object '{keys[1]}' is locked",)
    ]


def test_foreign_objects_beside_the_lists_stay(scene: UpkeepScene) -> None:
    """What we never make is named, and stays."""
    archive(scene)
    foreign = f"{LAYOUT.relations_root}20390101T000000Z.csv"
    scene.stores["r2"].inner.put_if_absent(foreign, Body.of(b"mine"), {})
    scene.verify()
    done = scene.expirer().expire()
    assert foreign in scene.keys("r2")
    assert any(foreign in note for store in done.stores for note in store.plan.notes)


def test_hidden_versions_go_too(tmp_path: Path) -> None:
    """A list that a delete only hid is billed, and goes when the list itself would."""
    versioned = VersionedFolder("b2", tmp_path / "b2")
    scene = UpkeepScene(tmp_path, inner=[versioned])
    keys = archive(scene)
    versioned.hide(keys[1])
    versioned.hide(keys[24])
    scene.verify()
    scene.expirer().expire()
    assert versioned.hidden_keys() == {keys[24]}
