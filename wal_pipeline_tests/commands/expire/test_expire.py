"""Expiry of real objects: what goes, in which order, what a crash leaves, and what is said about the rest."""

import json
import shutil
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.format.lease import Lease, LeasedWork
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.archive.recovery.coverage import Coverage
from wal_pipeline.archive.retention.rules import RetentionRule, restorable_ids
from wal_pipeline.commands.inventory.listing import list_store
from wal_pipeline.commands.inventory.wholeness import BackupFaultKind
from wal_pipeline.errors import ObjectLockedError, StoreUnavailableError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, history_bytes, name_of
from wal_pipeline_tests.support.upkeep_scene import DAY, LAYOUT, UpkeepScene, base_backup


class KilledError(BaseException):
    """The process ends here."""


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    return UpkeepScene(tmp_path)


def names(first: int, last: int) -> set[str]:
    return {name_of(number) for number in range(first, last + 1)}


def test_the_plan_changes_nothing_and_says_why_each_object_stays_or_goes(scene: UpkeepScene) -> None:
    """After 24 days the base backup of day 13 is the newest before the window: what is older goes."""
    backups = scene.run_for(24)
    before = scene.keys("r2")
    done = scene.expirer().plan()
    r2 = done.stores[0].plan.plan
    assert r2 is not None
    going = [step.name for step in r2.expire]
    assert going == [
        *(one.backup_id for one in backups[:3] for _ in range(2)),
        *sorted(names(1, 12)),
    ]
    reasons = {one.name: one.reason for one in r2.keep}
    assert reasons[backups[3].backup_id] == "the newest base backup before the window began, on the path to timeline 1"
    assert reasons[name_of(13)] == f"needed by base backup {backups[3].backup_id}"
    assert scene.keys("r2") == before
    assert done.is_complete


def test_confirmed_each_store_keeps_just_what_the_window_needs(scene: UpkeepScene) -> None:
    """Objects, records and base backups go together; the audit log names each with its reason; files go in order."""
    scene.store_file("00000001.history", history_bytes([1]), scene.now)
    backups = scene.run_for(24)
    done = scene.expirer(concurrency=4).expire()
    assert done.is_complete
    for store in ("r2", "b2"):
        assert scene.files(store) == names(13, 24) | {"00000001.history"}
        assert scene.backups(store) == {one.backup_id for one in backups[3:]}
        assert scene.recorded(store).keys() == scene.files(store)
    assert {one.backup_id for one in scene.catalog.base_backups.all()} == scene.backups("r2")
    assert [len(store.removed.files) for store in done.stores if store.removed] == [12, 12]
    lines = [json.loads(line) for line in scene.audit.path.read_text().splitlines()]
    assert len(lines) == 2 * (3 + 12)
    assert (lines[0]["action"], lines[0]["subject"], lines[0]["result"]) == ("delete", backups[0].backup_id, "removed")
    again = scene.expirer().plan()
    assert [store.plan.plan and store.plan.plan.expire for store in again.stores] == [(), ()]


def test_what_a_running_base_backup_builds_on_never_goes(scene: UpkeepScene) -> None:
    """An incremental one is being taken on an old one. No clock is asked, for this host's may be days ahead."""
    backups = scene.run_for(24)
    old = backups[0].backup_id
    lease = Lease("0f" * 8, LeasedWork.BASE_BACKUP, None, (old,), "db2", 1, "", "1.0", scene.now, scene.now)
    scene.stores["r2"].put_if_absent(LAYOUT.lease_key(lease.token, 1), Body.of(lease.to_json()), {})
    scene.now += DAY / 24
    assert scene.expirer().expire().is_complete
    assert (old in scene.backups("r2"), old in scene.backups("b2")) == (True, False)


def test_a_crash_at_any_deletion_leaves_no_base_backup_that_looks_restorable_and_is_not(tmp_path: Path) -> None:
    """After each crash all that a store shows can be restored, and the next run ends as if nothing had happened."""
    begun = UpkeepScene(tmp_path / "begun", rule=RetentionRule(4 * DAY, 1))
    begun.back_up(1, begun.now + DAY / 2, parent=begun.back_up(1, begun.now))
    begun.now += DAY
    begun.run_for(8, backup_every=3)
    begun.catalog.close()
    whole = copy_of(begun, tmp_path / "whole")
    assert whole.expirer().expire().is_complete
    wanted = {store: whole.keys(store) for store in whole.stores}
    deletions = sum(call == "delete" for store in whole.stores.values() for call, _ in store.calls)
    assert deletions > 15
    for number in range(1, deletions + 1):
        scene = copy_of(begun, tmp_path / str(number))
        crash_at_deletion(scene, number)
        assert_no_lie(scene)
        assert scene.expirer().expire().is_complete
        assert {store: scene.keys(store) for store in scene.stores} == wanted
        assert scene.recorded("r2").keys() == scene.files("r2")
        assert {one.backup_id for one in scene.catalog.base_backups.all()} == scene.backups("r2")
        scene.catalog.close()


def copy_of(scene: UpkeepScene, folder: Path) -> UpkeepScene:
    """The same archive and catalog in another folder."""
    shutil.copytree(scene.folder, folder)
    return UpkeepScene(folder, rule=scene.rule, now=scene.now)


def crash_at_deletion(scene: UpkeepScene, number: int) -> None:
    """Expire, and die when the deletion of that number begins."""
    begun = 0

    def die(call: str, _key: str) -> None:
        nonlocal begun
        begun += call == "delete"
        if begun == number:
            raise KilledError

    for store in scene.stores.values():
        store.before = die
    with pytest.raises(KilledError):
        scene.expirer().expire()
    for store in scene.stores.values():
        store.before = lambda _call, _key: None


def assert_no_lie(scene: UpkeepScene) -> None:
    """Every base backup with a manifest is whole, and can be restored from its store alone."""
    for name, store in scene.stores.items():
        listing = list_store(ClusterStore(store.inner, LAYOUT))
        assert {fault.kind for fault in listing.faults.values()} <= {BackupFaultKind.UNFINISHED}
        [cluster] = scene.surveyor().survey().clusters
        found = restorable_ids(Coverage.of(cluster.contents, [name]))
        assert found == listing.manifests.keys() != set()


def test_a_store_that_is_down_is_left_out_and_named(scene: UpkeepScene) -> None:
    """The other one is expired; the records of the silent one stay as they are."""
    scene.run_for(24)

    def refuse(_call: str, _key: str) -> None:
        raise StoreUnavailableError("b2", "no answer")

    scene.stores["b2"].before = refuse
    done = scene.expirer().expire()
    assert dict(done.silent) == {"b2": "b2: no answer"}
    assert [store.plan.store for store in done.stores] == ["r2"]
    assert not done.is_complete
    assert scene.files("r2") == names(13, 24)
    assert scene.recorded("b2").keys() == names(1, 24)


def test_a_store_that_fails_in_the_middle_ends_its_own_expiry_only(scene: UpkeepScene) -> None:
    """What was removed is recorded, the alert opens, and it resolves with the next whole run."""
    scene.run_for(24)

    def refuse(call: str, key: str) -> None:
        if call == "delete" and f"/{name_of(5)}" in key:
            raise StoreUnavailableError("b2", "no answer")

    scene.stores["b2"].before = refuse
    done = scene.expirer().expire()
    assert done.stores[0].removed is not None and done.stores[1].removed is not None
    assert (done.stores[1].removed.error, len(done.stores[1].removed.files)) == ("b2: no answer", 4)
    assert scene.recorded("b2").keys() == names(5, 24)
    [alert] = scene.catalog.alerts.active()
    assert (alert.kind, alert.subject) == (AlertKind.RETENTION_FAILED, f"b2/{SYSTEM_IDENTIFIER}")
    scene.stores["b2"].before = lambda _call, _key: None
    assert scene.expirer().expire().is_complete
    assert scene.catalog.alerts.active() == []


def test_a_locked_manifest_keeps_its_base_backup_whole(scene: UpkeepScene) -> None:
    """The rest is planned again: its WAL and its chain stay, it is asked once, and a person is told."""
    backups = scene.run_for(24)
    locked = LAYOUT.manifest_key(backups[1].backup_id)

    def lock(call: str, key: str) -> None:
        if call == "delete" and key == locked:
            raise ObjectLockedError("b2", f"object '{key}' is locked until next year")

    scene.stores["b2"].before = lock
    done = scene.expirer().expire()
    assert scene.backups("b2") == {one.backup_id for one in (backups[1], *backups[3:])}
    assert scene.files("b2") == names(5, 24)
    assert scene.files("r2") == names(13, 24)
    assert done.stores[1].removed is not None
    assert done.stores[1].removed.locked == (f"b2: object '{locked}' is locked until next year",)
    assert [key for call, key in scene.stores["b2"].calls if call == "delete"].count(locked) == 1
    assert_no_lie(scene)


def test_locked_files_are_told_and_stay_recorded(scene: UpkeepScene) -> None:
    """All others go."""
    scene.run_for(24)
    held = scene.key_of("b2", name_of(3))

    def lock(call: str, key: str) -> None:
        if (call, key) == ("delete", held):
            raise ObjectLockedError("b2", f"object '{key}' is locked")

    scene.stores["b2"].before = lock
    done = scene.expirer().expire()
    assert done.stores[1].problems == (f"b2: object '{held}' is locked",)
    assert scene.files("b2") == names(13, 24) | {name_of(3)} == scene.recorded("b2").keys()


def test_a_store_without_a_restorable_base_backup_loses_nothing(scene: UpkeepScene) -> None:
    """Its first segments are gone: the refusal is said, and the other store is expired."""
    for backup in scene.run_for(24):
        number = int(backup.backup_id[-8:], 16)
        scene.stores["b2"].inner.delete(scene.key_of("b2", name_of(number)))
    left = scene.files("b2")
    done = scene.expirer().expire()
    assert done.stores[1].plan.refusal == "b2: none of 6 base backups is restorable, so nothing expires"
    assert scene.files("b2") == left
    assert scene.files("r2") == names(13, 24)
    [alert] = scene.catalog.alerts.active()
    assert alert.message == "b2: none of 6 base backups is restorable, so nothing expires"


def test_without_base_backups_the_age_of_a_file_decides(scene: UpkeepScene) -> None:
    """As in the original guide; and it is said that no recovery is possible."""
    for number in range(1, 21):
        scene.archive(number, scene.now)
        scene.now += DAY
    done = scene.expirer().expire()
    assert scene.files("r2") == names(12, 20)
    plan = done.stores[0].plan.plan
    assert plan is not None
    assert plan.warnings == ("r2: has no base backup, so no recovery from it is possible; files expire by their age",)


def test_the_age_is_read_from_the_object_where_the_catalog_is_lost(scene: UpkeepScene) -> None:
    """The stores are the truth: an empty catalog changes no decision."""
    for number in range(1, 21):
        scene.archive(number, scene.now, recorded=False)
        scene.now += DAY
    scene.expirer().expire()
    assert scene.files("b2") == names(12, 20)


def test_a_base_backup_that_a_repair_can_heal_stays(scene: UpkeepScene) -> None:
    """A damaged copy of a segment that it needs is good on the other store: neither goes."""
    backups = scene.run_for(24)
    scene.catalog.files.set_status(SYSTEM_IDENTIFIER, [name_of(13)], "b2", CopyStatus.DAMAGED)
    plan = scene.expirer().plan().stores[1].plan.plan
    assert plan is not None
    assert {backups[3].backup_id, name_of(13)} <= {one.name for one in plan.keep}


def test_what_an_unfinished_base_backup_left_goes_too(scene: UpkeepScene) -> None:
    """Objects without a manifest are removed once nothing was added to them for two days."""
    scene.run_for(5)
    key = LAYOUT.base_key("20260101T000000Z-000000010000000000000001", "base.000000.tar")
    scene.stores["r2"].inner.put_if_absent(key, Body.of(b"half"), {})
    done = scene.expirer().expire()
    assert done.stores[0].unfinished is not None
    assert done.stores[0].unfinished.objects == 1
    assert key not in scene.keys("r2")


def test_a_broken_base_backup_that_is_older_than_all_others_goes(scene: UpkeepScene) -> None:
    """An object of it is lost: nobody will ever refill it."""
    backups = scene.run_for(24)
    for store in scene.stores.values():
        store.inner.delete(LAYOUT.base_key(backups[0].backup_id, "base.000000.tar"))
    scene.expirer().expire()
    assert scene.backups("r2") == {one.backup_id for one in backups[3:]}
    assert not [key for key in scene.keys("r2") if backups[0].backup_id in key]


def test_a_clock_that_is_a_year_ahead_expires_nothing(scene: UpkeepScene) -> None:
    """By such a clock all of the archive is old; a person who knows better may go on."""
    scene.run_for(24)
    before = {store: scene.keys(store) for store in ("r2", "b2")}
    scene.now += 365 * DAY
    done = scene.expirer().expire()
    assert done.doubt == (
        "nothing expires: it is 2041-03-25 12:00Z by this host's clock, and the newest file of the whole archive is "
        "from 2040-03-24 12:00Z, before the window of 10 days began"
    )
    assert not done.is_complete
    assert {store: scene.keys(store) for store in ("r2", "b2")} == before
    alerts = [alert for alert in scene.catalog.alerts.active() if alert.kind is AlertKind.RETENTION_FAILED]
    assert {alert.message for alert in alerts} == {
        f"{done.doubt}; set this host's clock right; if it is right and nothing was archived for so long, "
        "'wal-pipeline expire --confirm --trust-clock' goes on"
    }
    trusted = scene.expirer().expire(trust_clock=True)
    assert trusted.is_complete
    assert len(scene.files("r2")) < 24
    assert not scene.catalog.alerts.active()


def test_a_quiet_server_with_base_backups_is_no_wrong_clock(scene: UpkeepScene) -> None:
    """What proves the clock may be a base backup as well as a file, and nothing that is later than now."""
    scene.run_for(24)
    scene.archive(25, scene.now + 400 * DAY)
    scene.now += 30 * DAY
    assert scene.expirer().expire().doubt is not None
    scene.back_up(24, scene.now - DAY)
    assert scene.expirer().expire().doubt is None


def cut_base_backup(scene: UpkeepScene, number: int, *, with_part: bool = True) -> str:
    """Store on both stores all objects of a base backup but its manifest, as one leaves them that is killed then."""
    manifest, parts = base_backup(number, scene.now)
    names = {"base.000000.tar": parts["base.000000.tar"], "backup_manifest": parts["backup_manifest"]}
    if with_part:
        names["file_index.part.000000"] = b"{}"
    for store in scene.stores.values():
        for name, data in names.items():
            store.inner.put_if_absent(LAYOUT.base_key(manifest.backup_id, name), Body.of(data), {})
    return manifest.backup_id


def left(scene: UpkeepScene, store: str, backup_id: str) -> int:
    """The number of objects that a store has of a base backup."""
    return sum(backup_id in key for key in scene.keys(store))


def test_a_base_backup_that_was_cut_before_its_manifest_goes_by_its_age(scene: UpkeepScene) -> None:
    """A part of its index proves that its manifest was never stored. A lease of its process keeps it."""
    scene.run_for(5)
    cut = cut_base_backup(scene, 5)
    lease = Lease("0f" * 8, LeasedWork.BASE_BACKUP, cut, (), "db2", 1, "", "1.0", scene.now, scene.now)
    scene.stores["r2"].put_if_absent(LAYOUT.lease_key(lease.token, 1), Body.of(lease.to_json()), {})
    assert scene.expirer().expire().is_complete
    assert (left(scene, "r2", cut), left(scene, "b2", cut)) == (3, 0)
    scene.stores["r2"].delete(LAYOUT.lease_key(lease.token, 1))
    assert scene.expirer().expire().is_complete
    assert left(scene, "r2", cut) == 0


@pytest.mark.parametrize("known", ["a silent store", "another store", "the catalog"])
def test_what_anybody_may_know_is_not_taken_for_cut(scene: UpkeepScene, known: str) -> None:
    """Its manifest may be on the store that does not answer; another store, or the catalog, says that it was whole."""
    [backup] = scene.run_for(4)
    for store in scene.stores.values() if known != "another store" else [scene.stores["r2"]]:
        store.inner.delete(LAYOUT.manifest_key(backup.backup_id))
        part = LAYOUT.base_key(backup.backup_id, "file_index.part.000000")
        store.inner.put_if_absent(part, Body.of(b"{}"), {})
    if known != "the catalog":
        for store in scene.stores:
            scene.catalog.base_backups.remove_copy(SYSTEM_IDENTIFIER, backup.backup_id, store)
    if known == "a silent store":
        scene.stores["b2"].before = silent
    scene.run_for(4, begin=5)
    scene.expirer().expire()
    assert left(scene, "r2", backup.backup_id) == 3


def silent(call: str, _key: str) -> None:
    """Answer nothing, but take what is put."""
    if call in ("list", "system_identifiers"):
        raise StoreUnavailableError("b2", "it does not answer")


def test_what_lost_its_manifest_goes_only_when_a_newer_one_stands_for_it(scene: UpkeepScene) -> None:
    """Nothing proves that it was cut: it stays for as long as a moment of the window could need it."""
    scene.run_for(5)
    lost = cut_base_backup(scene, 5, with_part=False)
    scene.run_for(8, begin=6)
    scene.expirer().expire()
    assert left(scene, "r2", lost) == 2
    scene.run_for(16, begin=14)
    scene.expirer().expire()
    assert left(scene, "r2", lost) == 0


def test_parts_of_an_index_beside_a_manifest_go(scene: UpkeepScene) -> None:
    """They could not be removed when it was stored, and would say that it was cut if its manifest were lost."""
    [backup] = scene.run_for(4)
    part = LAYOUT.base_key(backup.backup_id, "file_index.part.000000")
    scene.stores["r2"].inner.put_if_absent(part, Body.of(b"{}"), {})
    before = scene.keys("r2") - {part}
    assert scene.expirer().expire().is_complete
    assert scene.keys("r2") == before
