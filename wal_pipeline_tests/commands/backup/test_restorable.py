"""What becomes of a base backup on each store, as the catalog learns it, and how a store is refilled."""

from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BackupTar, BaseBackupManifest, WalRange
from wal_pipeline.archive.format.base_backup.manifest_json import to_json
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupKind, Codec, Copy, CopyStatus, WalFile
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.backup import restorable as base_backup_records
from wal_pipeline.commands.backup.restorable import BaseBackupRecorder, StoreOutcome
from wal_pipeline.commands.refill.base_backups import refill_store
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.stores.base import Body, Store
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind
from wal_pipeline_tests.support import restore_archive
from wal_pipeline_tests.support.base_backup_scene import SMALL_PARTS, folder_store, now, read
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.restore_archive import SYSTEM_IDENTIFIER, WatchedStore, describe_file, segment_bytes

PARENT_ID = "20261121T174500Z-000000010000000000000001"
LAYOUT = Layout("", "main", make_manifest().system_identifier)


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Store]:
    """Three folders."""
    return {name: folder_store(name, tmp_path) for name in ("r2", "b2", "local")}


@pytest.fixture
def recorder(stores: dict[str, Store], catalog: Catalog) -> BaseBackupRecorder:
    """A recorder that does not wait."""
    return BaseBackupRecorder(stores, catalog, now, wal_timeout_seconds=0, archive=None)


def stored_backup(
    store: Store, chain: tuple[str, ...] = (), layout: Layout = LAYOUT, **changes: Any
) -> BaseBackupManifest:
    """Put a small base backup of one object on a store."""
    tar, listed = Body.of(b"a tar"), Body.of(b"a list")
    manifest = make_manifest(
        kind=BackupKind.INCREMENTAL if chain else BackupKind.FULL,
        chain=chain,
        codec=Codec.NONE,
        tars=(BackupTar("base", 5, tar.sha256, (BackupObject("base.000000.tar", 5, tar.sha256, 5),)),),
        backup_manifest=BackupObject("backup_manifest", 6, listed.sha256, 6),
        **changes,
    )
    for name, body in (("base.000000.tar", tar), ("backup_manifest", listed), ("manifest.json", None)):
        key = layout.base_key(manifest.backup_id, name)
        store.put_if_absent(key, body or Body.of(to_json(manifest)), {})
    return manifest


def record_wal(catalog: Catalog, manifest: BaseBackupManifest, store: Store) -> list[str]:
    """Put every segment that the base backup needs on the store, with its record; return the keys."""
    keys = []
    for name in manifest.required_segments:
        file = WalFile(name.name, FileKind.SEGMENT, LAYOUT.system_identifier, name.timeline, 1, "ab" * 32, now())
        keys.append(LAYOUT.wal_key(name, Codec.NONE, encrypted=False))
        store.put_if_absent(keys[-1], Body.of(b"w"), {})
        copy = Copy(name.name, LAYOUT.system_identifier, store.name, CopyStatus.VERIFIED, keys[-1], None)
        catalog.files.record_verified(file, [copy])
    return keys


def restorable(catalog: Catalog) -> dict[str, bool]:
    """What the catalog says of each store."""
    return {copy.store: copy.restorable_at is not None for copy in catalog.base_backups.copies()}


def test_each_store_counts_for_itself(stores: dict[str, Store], catalog: Catalog, recorder: BaseBackupRecorder) -> None:
    """r2 has the WAL too, b2 only the base backup, local neither; the catalog says the same."""
    manifest = stored_backup(stores["r2"])
    stored_backup(stores["b2"])
    record_wal(catalog, manifest, stores["r2"])
    outcomes = [StoreOutcome("r2", True), StoreOutcome("b2", True), StoreOutcome("local", False, error="local: full")]
    r2, b2, local = recorder.settle(manifest, LAYOUT, outcomes)
    assert (r2.restorable, r2.error) == (True, None)
    assert b2.error == (
        f"b2: base backup '{manifest.backup_id}' is not restorable after 0 seconds: expected verified copies of "
        f"1 segments, missing '{manifest.required_segments[0].name}'"
    )
    assert (local.stored, local.restorable, local.error) == (False, False, "local: full")
    assert catalog.base_backups.all() == [manifest.record()]
    assert restorable(catalog) == {"r2": True, "b2": False, "local": False}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedStore:
    """A store that is asked at once for what the catalog does not know."""
    monkeypatch.setattr(base_backup_records, "ASK_STORE_SECONDS", 0)
    return WatchedStore("watched", tmp_path / "watched")


def settled_by(store: WatchedStore, catalog: Catalog, manifest: BaseBackupManifest) -> StoreOutcome:
    """What becomes of a base backup on this store alone, without waiting."""
    recorder = BaseBackupRecorder({"watched": store}, catalog, now, wal_timeout_seconds=0, archive=None)
    [outcome] = recorder.settle(manifest, restore_archive.LAYOUT, [StoreOutcome("watched", True)])
    return outcome


def test_wal_that_a_lost_catalog_does_not_know_is_found_on_the_store(asked: WatchedStore, catalog: Catalog) -> None:
    """Chaos seed 4317: the catalog was removed under a base backup, which then waited for what was there."""
    manifest = stored_backup(
        asked, layout=restore_archive.LAYOUT, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=1 << 20
    )
    before = settled_by(asked, catalog, manifest)
    asked.add(manifest.required_segments[0].name)
    after = settled_by(asked, catalog, manifest)
    assert (before.restorable, after.restorable) == (False, True)


def test_what_the_catalog_takes_for_damaged_does_not_count(asked: WatchedStore, catalog: Catalog) -> None:
    """The store is asked only for what the catalog does not know."""
    manifest = stored_backup(
        asked, layout=restore_archive.LAYOUT, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=1 << 20
    )
    name = manifest.required_segments[0].name
    key = asked.add(name)
    file = describe_file(name, segment_bytes(name))
    catalog.files.record_failed(file, Copy(name, SYSTEM_IDENTIFIER, "watched", CopyStatus.FAILED, key, None))
    outcome = settled_by(asked, catalog, manifest)
    assert not outcome.restorable


def test_an_incremental_base_backup_without_its_parent_is_not_restorable(
    stores: dict[str, Store], catalog: Catalog, recorder: BaseBackupRecorder
) -> None:
    """The store was down when the parent was taken: WAL alone does not help."""
    manifest = stored_backup(stores["r2"], chain=(PARENT_ID,))
    record_wal(catalog, manifest, stores["r2"])
    [outcome] = recorder.settle(manifest, LAYOUT, [StoreOutcome("r2", True)])
    assert outcome.error == f"r2: base backup '{manifest.backup_id}' needs '{PARENT_ID}', which is not there"
    assert not outcome.restorable


def test_a_base_backup_without_all_its_objects_is_not_restorable_whatever_the_upload_said(
    stores: dict[str, Store], catalog: Catalog, recorder: BaseBackupRecorder
) -> None:
    """An object was removed between its upload and now: the store is looked at, and lacks the base backup."""
    manifest = stored_backup(stores["r2"])
    record_wal(catalog, manifest, stores["r2"])
    stores["r2"].delete(LAYOUT.base_key(manifest.backup_id, "base.000000.tar"))
    [outcome] = recorder.settle(manifest, LAYOUT, [StoreOutcome("r2", True)])
    assert (outcome.stored, outcome.restorable) == (False, False)
    assert outcome.error == f"r2: base backup '{manifest.backup_id}': object 'base.000000.tar' is not there"
    assert restorable(catalog) == {"r2": False}


def test_a_record_of_wal_that_is_gone_makes_nothing_restorable(
    stores: dict[str, Store], catalog: Catalog, recorder: BaseBackupRecorder
) -> None:
    """The catalog says verified, and the object was removed since."""
    manifest = stored_backup(stores["r2"])
    [key] = record_wal(catalog, manifest, stores["r2"])
    stores["r2"].delete(key)
    [outcome] = recorder.settle(manifest, LAYOUT, [StoreOutcome("r2", True)])
    assert (outcome.stored, outcome.restorable) == (True, False)
    assert f"missing '{manifest.required_segments[0].name}'" in (outcome.error or "")


def test_an_incremental_base_backup_on_a_parent_that_is_not_whole_is_not_restorable(
    stores: dict[str, Store], catalog: Catalog, recorder: BaseBackupRecorder
) -> None:
    """The parent's manifest alone is no parent."""
    parent = stored_backup(stores["r2"], backup_id=PARENT_ID, wal_ranges=(WalRange(1, Lsn(1 << 24), Lsn(1 << 25)),))
    manifest = stored_backup(stores["r2"], chain=(PARENT_ID,))
    record_wal(catalog, manifest, stores["r2"])
    stores["r2"].delete(LAYOUT.base_key(PARENT_ID, parent.objects[0].name))
    [outcome] = recorder.settle(manifest, LAYOUT, [StoreOutcome("r2", True)])
    assert outcome.error == (
        f"r2: base backup '{manifest.backup_id}' needs '{PARENT_ID}', which is not whole there: "
        f"base backup '{PARENT_ID}': object 'base.000000.tar' is not there"
    )


def test_a_store_is_refilled_from_the_first_good_copy(
    stores: dict[str, Store], catalog: Catalog, recorder: BaseBackupRecorder
) -> None:
    """r2's copy is damaged, so local's is taken; the catalog learns of the new copy."""
    manifest = stored_backup(stores["r2"])
    stored_backup(stores["local"])
    key = LAYOUT.base_key(manifest.backup_id, "base.000000.tar")
    stores["r2"].delete(key)
    stores["r2"].put_if_absent(key, Body.of(b"a raT"), {})
    record_wal(catalog, manifest, stores["b2"])
    outcome = refill_store(manifest.backup_id, "b2", stores, LAYOUT, recorder, limits=SMALL_PARTS)
    assert (outcome.result.source, outcome.result.copied, outcome.store.restorable) == ("local", 2, True)
    assert read(stores["b2"], key) == b"a tar"
    assert restorable(catalog) == {"b2": True}


def test_without_any_good_copy_the_refill_says_why(stores: dict[str, Store], recorder: BaseBackupRecorder) -> None:
    """Each source's reason is named, and the destination stays empty."""
    backup_id = make_manifest().backup_id
    with pytest.raises(BaseBackupError) as caught:
        refill_store(backup_id, "b2", stores, LAYOUT, recorder)
    assert caught.value.message.startswith(f"base backup '{backup_id}' cannot be refilled on b2: r2: ")
    assert "; local: " in caught.value.message
    assert list(stores["b2"].list("")) == []
