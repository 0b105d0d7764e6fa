"""A manifest never names what is gone: each object is looked at again before it is stored."""

from pathlib import Path

import pytest

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.commands.backup.confirm import ProvenObjects, require_whole
from wal_pipeline.commands.copies.prove import prove_described
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.errors import BaseBackupError, DamagedCopyError, ObjectMissingError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.base_backup_scene import folder_store
from wal_pipeline_tests.support.manifests import make_manifest

LAYOUT = Layout("", "main", 7575757575757575757)
MANIFEST = make_manifest()


@pytest.fixture
def place(tmp_path: Path) -> ClusterStore:
    """A store with every object of the manifest, of the right sizes."""
    made = ClusterStore(folder_store("r2", tmp_path), LAYOUT)
    for item in MANIFEST.objects:
        key = LAYOUT.base_key(MANIFEST.backup_id, item.name)
        made.store.put_if_absent(key, Body.of(b"x" * item.size_bytes), {})
    return made


def proven(place: ClusterStore, *, read_back: bool = True) -> ProvenObjects:
    """Note every object as it was stored."""
    noted = ProvenObjects(place.store)
    for item in MANIFEST.objects:
        expected = StoredBytes.of(b"x" * item.size_bytes)
        key = LAYOUT.base_key(MANIFEST.backup_id, item.name)
        noted.note(prove_described(place.store, key, expected, read_back=read_back))
    return noted


@pytest.mark.parametrize("read_back", [True, False])
def test_what_is_there_as_it_was_stored_is_accepted(place: ClusterStore, *, read_back: bool) -> None:
    """Nothing was touched."""
    proven(place, read_back=read_back).require_all()
    require_whole(place, MANIFEST)


def test_an_object_that_is_gone_is_not_named_by_a_manifest(place: ClusterStore) -> None:
    """It was stored hours ago, and somebody removed it since."""
    noted = proven(place)
    key = LAYOUT.base_key(MANIFEST.backup_id, MANIFEST.objects[1].name)
    place.store.delete(key)
    with pytest.raises(ObjectMissingError) as caught:
        noted.require_all()
    assert caught.value.message == f"r2: object '{key}' was stored and is not there any more"
    with pytest.raises(BaseBackupError, match=r"object 'base\.000001\.tar\.zst' is not there") as lacks:
        require_whole(place, MANIFEST)
    assert lacks.value.hint == "'wal-pipeline verify --repair' refills it from another store."


def test_an_object_that_was_replaced_is_not_named_by_a_manifest(place: ClusterStore) -> None:
    """Another one of the same size lies there, so its ETag is another."""
    noted = proven(place)
    item = MANIFEST.objects[0]
    key = LAYOUT.base_key(MANIFEST.backup_id, item.name)
    place.store.delete(key)
    place.store.put_if_absent(key, Body.of(b"y" * item.size_bytes), {})
    with pytest.raises(DamagedCopyError, match="it was replaced"):
        noted.require_all()
