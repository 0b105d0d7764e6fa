"""What is listed of a store that holds more than it should."""

from pathlib import Path

import pytest

from wal_pipeline.commands.inventory import manifests as inventory
from wal_pipeline.commands.inventory.manifests import list_base_backups
from wal_pipeline.stores.base import Body
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.restore_archive import LAYOUT, WatchedStore


def test_a_manifest_without_end_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of it is read than a manifest can have; the other base backups are listed all the same."""
    monkeypatch.setattr(inventory, "MAX_MANIFEST_BYTES", 1000)
    store = WatchedStore("r2", tmp_path / "r2")
    key = LAYOUT.manifest_key(make_manifest().backup_id)
    store.put_if_absent(key, Body.of(b" " * 1001), {})
    assert list_base_backups(store, LAYOUT) == ((), (f"r2: manifest 'r2:{key}' has more than 1000 bytes",))
