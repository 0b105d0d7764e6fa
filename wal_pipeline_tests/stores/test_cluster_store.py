"""A cluster's part of a store knows the store's name, and keeps each store with its own keys."""

from pathlib import Path

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.stores.cluster_store import ClusterStore, cluster_stores
from wal_pipeline_tests.support.archive_scene import folder_store

LAYOUT = Layout("backups", "main", 1)


def test_each_store_gets_the_same_keys(tmp_path: Path) -> None:
    """By the stores' names; two of one store and one cluster are equal."""
    stores = {name: folder_store(name, tmp_path / name) for name in ("r2", "b2")}
    places = cluster_stores(stores, LAYOUT)
    assert [(name, place.name, place.store, place.layout) for name, place in places.items()] == [
        (name, name, store, LAYOUT) for name, store in stores.items()
    ]
    assert places["r2"] == ClusterStore(stores["r2"], LAYOUT) != ClusterStore(stores["r2"], Layout("", "main", 1))
