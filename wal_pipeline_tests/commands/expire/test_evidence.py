"""A store of which something cannot be read loses nothing that this could need, and says so."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.records import Codec, Encoding
from wal_pipeline.commands.expire.expire import Expiry
from wal_pipeline.stores.base import Body
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.broken_backups import BROKEN, LATER, Broken, break_backup, put_back
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, history_bytes, name_of
from wal_pipeline_tests.support.upkeep_scene import DAY, LAYOUT, UpkeepScene, base_backup, describe

OTHER_SIZE = 4 * SEGMENT_BYTES
ONE_STORE, BOTH_STORES = ("r2",), ("r2", "b2")


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    return UpkeepScene(tmp_path)


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest) -> Broken:
    """Each way to break a base backup in turn."""
    found: Broken = BROKEN[request.param]
    return found


def all_keys(scene: UpkeepScene) -> dict[str, set[str]]:
    return {store: scene.keys(store) for store in scene.stores}


def problems(done: Expiry) -> str:
    return "\n".join(problem for store in done.stores for problem in store.problems)


def notes(done: Expiry) -> str:
    return "\n".join(note for store in done.stores for note in store.plan.notes)


@pytest.mark.parametrize("stores", [ONE_STORE, BOTH_STORES])
def test_a_base_backup_that_cannot_be_read_loses_no_wal(
    scene: UpkeepScene, broken: Broken, stores: Sequence[str]
) -> None:
    """Days old, its manifest is damaged, of a later format or gone, or an object is: nothing expires, and it is said.

    A verification heals it from the other store. Where no store has it whole, its WAL stays, and it can be restored
    once it was put back.
    """
    older, newer = scene.run_for(4, backup_every=2)
    there = break_backup(scene, older.backup_id, broken, stores)
    before = all_keys(scene)
    done = scene.expirer().expire()
    assert all_keys(scene) == before
    assert not done.is_complete
    for store in stores:
        assert f"{store}: nothing expires while 1 copy on it may be needed and cannot be used" in problems(done)
    assert older.backup_id in problems(done)
    assert "'wal-pipeline verify --repair'" in problems(done)
    alerts = {one.subject.partition("/")[0]: one for one in scene.catalog.alerts.active()}
    assert {store: one.kind for store, one in alerts.items()} == dict.fromkeys(stores, AlertKind.RETENTION_FAILED)
    scene.verify(repair=True)
    done = scene.expirer().expire()
    assert done.is_complete, problems(done)
    assert all(before[store] <= scene.keys(store) for store in stores)
    if stores == BOTH_STORES:
        put_back(scene, older.backup_id, broken.part, there)
    assert scene.verify(share=1.0).open_faults == ()
    [cluster] = scene.surveyor().survey().clusters
    assert cluster.contents.backups[older.backup_id].stores == set(BOTH_STORES)
    assert {name_of(1), name_of(2)} <= scene.files("r2") & scene.files("b2")
    assert newer.backup_id in scene.backups("r2")


@pytest.mark.parametrize("stores", [ONE_STORE, BOTH_STORES])
def test_what_is_lost_holds_its_wal_until_a_newer_base_backup_stands_for_it(
    scene: UpkeepScene, broken: Broken, stores: Sequence[str]
) -> None:
    """It is no victim of the first expiry, and holds nothing for ever."""
    backups = scene.run_for(12)
    scene.expirer().expire()
    break_backup(scene, backups[0].backup_id, broken, BOTH_STORES)
    scene.verify(repair=True)
    if broken.part == "manifest.json" and broken.data is not None and broken.data(b"") == LATER:
        return  # that one never goes
    for day in range(12, 26):
        held = scene.files("r2")
        done = scene.expirer().expire()
        assert done.is_complete, problems(done)
        if name_of(1) not in scene.files("r2"):
            break
        assert scene.files("r2") == held
        scene.run_for(1, begin=day + 1)
    assert day in (14, 15), f"after {day} days"  # the base backup of day 5 left the window of ten days
    assert stores


def test_a_manifest_of_a_later_format_is_never_removed(scene: UpkeepScene) -> None:
    """A newer version of the program wrote it: what it could need stays until this one is updated."""
    backups = scene.run_for(4)
    break_backup(scene, backups[0].backup_id, BROKEN["manifest of a later format"], BOTH_STORES)
    scene.verify(repair=True)
    scene.run_for(24, begin=5)
    scene.verify(repair=True)
    done = scene.expirer().expire()
    assert done.is_complete, problems(done)
    key = LAYOUT.manifest_key(backups[0].backup_id)
    assert scene.read("r2", key) == LATER
    assert {name_of(number) for number in range(1, 29)} <= scene.files("r2")
    assert f"r2: base backup '{backups[0].backup_id}' and all that it could need stay, because manifest" in notes(done)
    assert "If a newer version of wal-pipeline wrote it, update this one" in notes(done)


def test_the_parents_of_an_incremental_that_cannot_be_read_stay(scene: UpkeepScene) -> None:
    """Nobody can say which they are, so each older base backup stays."""
    full = scene.back_up(1, scene.now)
    scene.run_for(1)
    others = scene.run_for(4, backup_every=2, begin=2)
    child = scene.back_up(5, scene.now - DAY / 2, parent=full)
    break_backup(scene, child.backup_id, BROKEN["damaged manifest"], BOTH_STORES)
    for one in scene.catalog.base_backups.all():
        if one.backup_id == child.backup_id:
            scene.catalog.base_backups.remove_copy(one.system_identifier, one.backup_id, "r2")
            scene.catalog.base_backups.remove_copy(one.system_identifier, one.backup_id, "b2")
    scene.verify(repair=True)
    scene.run_for(8, backup_every=6, begin=6)
    done = scene.expirer().expire()
    assert {full.backup_id, child.backup_id, *(one.backup_id for one in others)} <= scene.backups("r2")
    kept = {one.name: one.reason for one in done.stores[0].plan.plan.keep}  # type: ignore[union-attr]
    assert kept[full.backup_id] == f"may be a parent of base backup {child.backup_id}, which is not whole"


def test_a_base_backup_in_the_making_is_protected_and_no_problem(scene: UpkeepScene) -> None:
    """Objects without a manifest, young: neither they go nor the WAL since its start, nor a possible parent."""
    backups = scene.run_for(24)
    before = all_keys(scene)
    manifest, parts = base_backup(2, scene.now - 23 * DAY)
    key = LAYOUT.base_key(manifest.backup_id, "base.000000.tar")
    scene.stores["r2"].inner.put_if_absent(key, Body.of(parts["base.000000.tar"]), {})
    touch(scene, "r2", key)
    done = scene.expirer().expire()
    assert done.is_complete, problems(done)
    assert {one for one in before["r2"] if "/wal/" in one} <= scene.keys("r2")
    assert f"r2: base backup '{manifest.backup_id}' has no manifest and is known to nobody" in notes(done)
    assert key in scene.keys("r2")
    assert backups[0].backup_id in scene.backups("r2")


def touch(scene: UpkeepScene, store: str, key: str) -> None:
    """Let an object be from the scene's now."""
    [path] = [one for one in (scene.folder / store).rglob("*") if one.is_file() and str(one).endswith(key)]
    os.utime(path, (scene.now.timestamp(), scene.now.timestamp()))


def test_what_has_all_but_its_manifest_is_no_leftover(scene: UpkeepScene) -> None:
    """The catalog is lost, and the manifest: its other objects stay, for they are a whole base backup."""
    [backup] = scene.run_for(4)
    for store in BOTH_STORES:
        scene.stores[store].inner.delete(LAYOUT.manifest_key(backup.backup_id))
    scene.catalog.close()
    (scene.folder / "catalog.sqlite").unlink()
    scene = UpkeepScene(scene.folder, now=scene.now)
    scene.run_for(4, begin=5)
    before = all_keys(scene)
    scene.expirer().expire()
    assert all_keys(scene) == before


def test_another_segment_size_is_never_judged(scene: UpkeepScene) -> None:
    """The names of both kinds of segments are the same and mean other positions: all of the old kind stays."""
    old = scene.run_for(10, backup_every=5)
    for number in range(5, 30):  # the new segments begin far above by their names
        if number % 5 == 0:
            new = scene.back_up(number + 20, scene.now, size=OTHER_SIZE)
        scene.store_file(name_of(number + 20, size=OTHER_SIZE), b"x" * 100, scene.now, size=OTHER_SIZE)
        scene.now += DAY
    done = scene.expirer().expire()
    assert done.is_complete, problems(done)
    for store in BOTH_STORES:
        assert {one.backup_id for one in old} <= scene.backups(store)
        assert {name_of(number) for number in range(1, 11)} <= scene.files(store)
    assert "r2: 10 files and 2 base backups stay, because this archive has segments of 1 MiB, 4 MiB" in notes(done)
    assert "WAL_PIPELINE_CLUSTER" in notes(done)
    assert name_of(25, size=OTHER_SIZE) not in scene.files("r2")  # the new kind is judged among itself
    assert new.backup_id in scene.backups("r2")


def test_a_segment_size_that_changed_minutes_ago_loses_nothing(scene: UpkeepScene) -> None:
    """The new base backup begins within the old names; what it needs lies there under another size."""
    scene.run_for(3, backup_every=3)
    scene.store_file(name_of(7, size=OTHER_SIZE), b"x" * 100, scene.now + DAY / 24, size=OTHER_SIZE)
    scene.back_up(2, scene.now + DAY / 12, size=OTHER_SIZE)
    scene.now += DAY / 6
    before = all_keys(scene)
    done = scene.expirer().expire()
    assert all_keys(scene) == before
    assert "r2: none of 1 base backups is restorable, so nothing expires" in problems(done)
    assert "of 1 MiB, 4 MiB" in notes(done)


def test_foreign_objects_stay_and_are_named(scene: UpkeepScene) -> None:
    """Beside base backups, within one that expires and within one that never was: no object goes that is not ours."""
    backups = scene.run_for(24)
    names = [
        "base/notes/readme",
        f"base/{backups[0].backup_id}/notes.txt",
        f"base/{backups[0].backup_id}/base.000000.tar.br",
        "base/20260101T000000Z-000000010000000000000001/notes.txt",
        "wal/00000001/0000000100000000/000000010000000000000001.xz",
        "wal/00000001/0000000100000000/notes",
        "later/something",
    ]
    for name in names:
        scene.stores["r2"].inner.put_if_absent(LAYOUT.root + name, Body.of(b"x"), {})
    for _ in range(2):
        done = scene.expirer().expire()
        assert {LAYOUT.root + name for name in names} <= scene.keys("r2")
    assert "r2: 7 objects below 'main/" in notes(done)
    assert name_of(1) not in scene.files("r2")


def test_wal_whose_metadata_cannot_be_read_stays(scene: UpkeepScene) -> None:
    """A newer version wrote it, and the catalog does not know it."""
    scene.run_for(24)
    data = b"of a later format"
    file = describe(name_of(30), data, scene.now)
    metadata = to_metadata(file, Encoding(Codec.NONE, False, len(data), "0" * 64, "0" * 32)) | {"wal-format": "2"}
    names = [f"{name_of(1)}", f"{name_of(30, timeline=7)}"]
    scene.catalog.files.remove_copy(LAYOUT.system_identifier, [names[0]], "r2")
    scene.catalog.files.remove_copy(LAYOUT.system_identifier, [names[0]], "b2")
    for name in names:
        key = LAYOUT.wal_key(require_file_name(name), Codec.NONE, encrypted=False)
        for store in BOTH_STORES:
            for old in list(scene.stores[store].inner.list(LAYOUT.wal_stem(require_file_name(name)))):
                scene.stores[store].inner.delete(old.key)
            scene.stores[store].inner.put_if_absent(key, Body.of(data), metadata)
    done = scene.expirer().expire()
    assert set(names) <= scene.files("r2")
    assert "r2: 2 files stay, because they are not recorded and their metadata cannot be read" in notes(done)


def test_a_history_file_that_cannot_be_read_keeps_its_timeline(scene: UpkeepScene) -> None:
    """And the base backups that may lead there, while nothing on the timeline stands for them."""
    [first] = scene.run_for(4)
    scene.store_file("00000002.history", history_bytes([1]), scene.now)
    for number in range(5, 25):
        scene.store_file(name_of(number, timeline=2), b"x" * 100, scene.now)
        scene.now += DAY
    later = scene.back_up(24, scene.now - DAY)  # of timeline 1 by its name: it stands for nothing on timeline 2
    for store in BOTH_STORES:
        key = scene.key_of(store, "00000002.history")
        scene.replace_object(store, key, b"half")
    scene.verify()
    scene.expirer().expire()
    assert {name_of(number, timeline=2) for number in range(5, 25)} <= scene.files("r2")
    assert {first.backup_id, later.backup_id} <= scene.backups("r2")


def test_expiry_says_that_no_verification_came_before_it(scene: UpkeepScene) -> None:
    """It is no problem by itself."""
    scene.run_for(4)
    done = scene.expirer().plan()
    assert done.is_complete
    [note] = [one for one in done.notes if "verif" in one]
    assert note.startswith("no verification of all stores is on record: run 'wal-pipeline verify --repair' before")
    scene.verify()
    assert [one for one in scene.expirer().plan().notes if "verif" in one] == []
    scene.now += 3 * DAY
    [note] = [one for one in scene.expirer().plan().notes if "verif" in one]
    assert note.startswith("the last verification of all stores began at 2040-03-05 12:00Z: ")
