"""One rule says whether a base backup is whole, and everybody who lists a store follows it."""

from pathlib import Path

import pytest

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.commands.inventory.listing import StoreListing, list_store
from wal_pipeline.commands.inventory.wholeness import BackupFault, BackupFaultKind, find_fault
from wal_pipeline.commands.rebuild_catalog import RebuildResult, rebuild
from wal_pipeline.commands.restore.contents import gather
from wal_pipeline.stores.base import StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.broken_backups import BROKEN, Broken, break_backup
from wal_pipeline_tests.support.catalog_records import NOON
from wal_pipeline_tests.support.manifests import make_manifest, make_tar
from wal_pipeline_tests.support.upkeep_scene import CLUSTER, DAY, LAYOUT, UpkeepScene


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    """Four days of WAL and two base backups, each on both stores."""
    made = UpkeepScene(tmp_path)
    made.run_for(4, backup_every=2)
    return made


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest) -> Broken:
    """Each way to break a base backup in turn."""
    found: Broken = BROKEN[request.param]
    return found


def break_newest(scene: UpkeepScene, broken: Broken) -> str:
    """Break the newest base backup on r2, and return its id."""
    backup_id = max(scene.backups("r2"))
    break_backup(scene, backup_id, broken, ["r2"])
    return backup_id


def rebuild_r2(scene: UpkeepScene) -> RebuildResult:
    return rebuild([scene.stores["r2"].inner], scene.catalog, "", CLUSTER)


def test_the_listing_keeps_what_is_not_whole_with_its_reason(scene: UpkeepScene, broken: Broken) -> None:
    """The base backup stays in the listing, by its id, beside the one that is whole."""
    whole = min(scene.backups("r2"))
    backup_id = break_newest(scene, broken)
    listing = list_store(ClusterStore(scene.stores["r2"], LAYOUT))
    assert listing.base.keys() == {whole, backup_id}
    assert (listing.is_whole(whole), listing.is_whole(backup_id), listing.is_whole("never there")) == (
        True,
        False,
        False,
    )
    assert listing.faults.keys() == {backup_id}
    fault = listing.faults[backup_id]
    assert (fault.kind, fault.objects) == (broken.kind, broken.objects)
    assert fault.reason.startswith(broken.reason.format(id=backup_id, root=LAYOUT.root))
    assert listing.finished == [whole] + [backup_id] * (broken.kind is not BackupFaultKind.UNFINISHED)


def test_every_caller_follows_the_rule(scene: UpkeepScene, broken: Broken) -> None:
    """A restore, retention, a verification and a rebuild take the same base backups for whole, for the same reason."""
    whole = min(scene.backups("r2"))
    backup_id = break_newest(scene, broken)
    listing = list_store(ClusterStore(scene.stores["r2"], LAYOUT))
    reason = f"r2: {listing.faults[backup_id].reason}"

    plan = gather([store.inner for store in scene.stores.values()], LAYOUT, None)
    held = {name: one.stores for name, one in plan.contents.backups.items()}
    assert held == {whole: {"r2", "b2"}, backup_id: {"b2"}}
    left_out = [] if broken.kind is BackupFaultKind.UNFINISHED else [f"{reason}: this copy is left out of the plan"]
    assert list(plan.notes) == left_out

    [survey] = scene.surveyor().survey().clusters
    assert {name: one.stores for name, one in survey.contents.backups.items()} == held
    assert list(survey.notes) == ([reason] if broken.kind is BackupFaultKind.UNREADABLE else [])

    [fault] = scene.verify().faults
    assert (fault.store, fault.item.name, fault.kind) == ("r2", backup_id, broken.verified)
    assert fault.message in (reason, f"r2: base backup '{backup_id}' is not there")

    scene.now += DAY
    rebuilt = rebuild_r2(scene).stores[0]
    copies = {copy.backup_id: copy for copy in scene.catalog.base_backups.copies() if copy.store == "r2"}
    assert copies[whole].status is CopyStatus.VERIFIED
    if broken.recorded is None:
        assert backup_id not in copies
        assert rebuilt.damaged == ()
        assert rebuilt.unfinished + rebuilt.faults in ((f"{LAYOUT.base_root}{backup_id}",), (reason,))
    else:
        assert (copies[backup_id].status, copies[backup_id].last_error) == (broken.recorded, reason)
        assert rebuilt.damaged == (reason,)


def objects(listed: dict[str, int]) -> dict[str, StoredObject]:
    return {name: StoredObject(name, size_bytes, NOON) for name, size_bytes in listed.items()}


def test_many_faults_are_named_in_order_and_cut_short() -> None:
    """Five names stand in the reason, all of them in ``objects``; what is missing counts before a wrong size."""
    manifest = make_manifest(tars=(make_tar("base", [1000] * 7, make_manifest().codec, False),))
    sizes = {item.name: item.size_bytes for item in manifest.objects}
    names = [item.name for item in manifest.tars[0].objects]
    where = f"base backup '{manifest.backup_id}'"
    assert find_fault(manifest, objects(sizes)) is None
    assert find_fault(manifest, objects(sizes | {"not of the manifest": 1})) is None
    lacking = {name: size for name, size in sizes.items() if name not in names} | {names[0]: 1}
    assert find_fault(manifest, objects(lacking)) == BackupFault(
        BackupFaultKind.INCOMPLETE,
        f"{where}: " + ", ".join(f"'{name}'" for name in names[1:6]) + " and 1 more are not there",
        tuple(names[1:]),
    )
    short = sizes | {names[2]: 3, names[4]: 0}
    assert find_fault(manifest, objects(short)) == BackupFault(
        BackupFaultKind.WRONG_SIZE,
        f"{where}: object '{names[2]}' has 3 bytes, expected 334, '{names[4]}' has 0 bytes, expected 334",
        (names[2], names[4]),
    )


def test_a_listing_without_base_backups_has_no_faults(tmp_path: Path) -> None:
    """An empty store is listed as empty."""
    store = UpkeepScene(tmp_path).stores["r2"]
    assert list_store(ClusterStore(store, LAYOUT)) == StoreListing("r2", {}, {}, {}, {})
