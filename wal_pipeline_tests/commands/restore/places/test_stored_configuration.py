"""What the stores say of a base backup's configuration."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.configuration import KeptConfiguration, configuration_name, configuration_to_tar
from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.restore.places.stored_configuration import has_own_configuration, read_kept
from wal_pipeline.errors import RestoreError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.archive_scene import folder_store
from wal_pipeline_tests.support.manifests import LAYOUT
from wal_pipeline_tests.support.tars import described, forge, make_tar

KEPT = KeptConfiguration("/pg", "/etc/c", "/etc/h", "/pg/i", files={"/etc/c": b"port = 1\n", "/etc/h": b"\xff"})
NAME = configuration_name(Codec.NONE, encrypted=False)


class Scene:
    """A base backup on two stores. What each holds of an object is given by its name."""

    def __init__(self, folder: Path, manifest: BaseBackupManifest) -> None:
        self.manifest = manifest
        self.stores = [folder_store(name, folder / name) for name in ("r2", "b2")]
        self.places = [ClusterStore(store, LAYOUT) for store in self.stores]

    def put(self, name: str, *contents: bytes) -> None:
        """Put an object on the stores, in their order."""
        for store, content in zip(self.stores, contents, strict=False):
            store.put_if_absent(LAYOUT.base_key(self.manifest.backup_id, name), Body.of(content), {})


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A base backup with a kept configuration, of which the stores hold nothing yet."""
    plain = forge({"base": make_tar(("f", b"x", 0o600))})
    return Scene(tmp_path, replace(plain, configuration=described(NAME, configuration_to_tar(KEPT))))


def test_a_damaged_copy_is_passed_over(scene: Scene) -> None:
    """The other store has it whole; half of the first one's bytes are not left in it."""
    good = configuration_to_tar(KEPT)
    scene.put(NAME, good[:-1] + b"x", good)
    assert read_kept(scene.manifest, scene.places, ()) == KEPT


def test_a_lost_configuration_does_not_hold_back_the_data(scene: Scene) -> None:
    """Each store's reason is told, and the way to restore without it."""
    scene.put(NAME, b"x")
    with pytest.raises(RestoreError) as caught:
        read_kept(scene.manifest, scene.places, ())
    assert "could not be had from any store:\nr2: " in caught.value.message
    assert "\nb2: " in caught.value.message
    assert caught.value.hint == "Restore without them with --no-restore-config."
    assert read_kept(replace(scene.manifest, configuration=None), scene.places, ()) is None


@pytest.mark.parametrize(("path", "has_one"), [("postgresql.conf", True), ("base/1/postgresql.conf", False)])
def test_the_file_list_tells_whether_a_base_backup_has_its_own(scene: Scene, path: str, has_one: bool) -> None:
    """PostgreSQL's manifest names every file, in pieces of any length; without a store nothing is claimed."""
    others = [{"Path": f"base/1/{number}", "Size": 8192} for number in range(20_000)]
    listed = json.dumps({"Files": [*others, {"Path": path, "Size": 1}, *others]}, indent=0).encode()
    item = described(scene.manifest.backup_manifest.name, listed)
    manifest = replace(scene.manifest, backup_manifest=item)
    assert has_own_configuration(manifest, scene.places, ()) is None
    scene.put(item.name, b"x", listed)
    assert has_own_configuration(manifest, scene.places, ()) is has_one
