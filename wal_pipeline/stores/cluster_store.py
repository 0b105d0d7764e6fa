"""Names one cluster's part of one store: the store, and where the cluster's objects lie in it."""

from collections.abc import Mapping
from dataclasses import dataclass

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.stores.base import Store


@dataclass(frozen=True, slots=True)
class ClusterStore:
    """All that one store holds of a cluster with one system identifier."""

    store: Store
    layout: Layout

    @property
    def name(self) -> str:
        """The store's name, with which every message about it begins."""
        return self.store.name


def cluster_stores(stores: Mapping[str, Store], layout: Layout) -> dict[str, ClusterStore]:
    """Return a cluster's part of each store, by the stores' names."""
    return {name: ClusterStore(store, layout) for name, store in stores.items()}
