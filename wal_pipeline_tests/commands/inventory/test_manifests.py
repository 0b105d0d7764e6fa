"""A manifest is read up to the size that one can have."""

from pathlib import Path

import pytest

from wal_pipeline.commands.inventory import manifests
from wal_pipeline.commands.inventory.listing import list_store
from wal_pipeline.commands.inventory.manifests import read_manifest_bytes
from wal_pipeline.commands.inventory.wholeness import BackupFault, BackupFaultKind
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.restore_archive import LAYOUT, WatchedStore


def test_a_manifest_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of it is read than a manifest can have; the listing says so and goes on."""
    monkeypatch.setattr(manifests, "MAX_MANIFEST_BYTES", 1000)
    store = WatchedStore("r2", tmp_path / "r2")
    backup_id = make_manifest().backup_id
    key = LAYOUT.manifest_key(backup_id)
    store.put_if_absent(key, Body.of(b" " * 1001), {})
    reason = f"manifest 'r2:{key}' has more than 1000 bytes"
    with pytest.raises(BaseBackupError) as raised:
        read_manifest_bytes(ClusterStore(store, LAYOUT), backup_id)
    assert raised.value.message == reason
    listing = list_store(ClusterStore(store, LAYOUT))
    assert listing.manifests == {}
    assert listing.faults == {backup_id: BackupFault(BackupFaultKind.UNREADABLE, reason)}
