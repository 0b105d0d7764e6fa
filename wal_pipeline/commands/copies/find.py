"""Finds the copies of a file on the stores, in whatever encoding they are stored."""

from collections.abc import Mapping

from wal_pipeline.archive.format.keys import StoredName
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import WalFileName, require_file_name


def find_copies(place: ClusterStore, name: WalFileName) -> list[tuple[str, StoredName]]:
    """Return the keys of a file's copies on one store, of any codec. One LIST; a store keeps one copy as a rule."""
    listed = place.store.list(place.layout.wal_stem(name))
    found = ((item.key, place.layout.parse_wal_key(item.key)) for item in listed)
    return [(key, stored) for key, stored in found if stored is not None and stored.file.name == name.name]


def find_copy(place: ClusterStore, name: WalFileName) -> str | None:
    """Return the key of a store's object for a file, in whatever encoding. Raises: StoreError."""
    return next((key for key, _ in find_copies(place, name)), None)


def which_stores_have(places: Mapping[str, ClusterStore], name: str) -> dict[str, bool]:
    """Return for each store whether it has the file, in any encoding; False where the store does not answer."""
    return {store: _has(place, name) for store, place in places.items()}


def _has(place: ClusterStore, name: str) -> bool:
    try:
        return bool(find_copies(place, require_file_name(name)))
    except StoreError:
        return False  # a proof waits on: the store may be back in time, and is named as missing where it is not
