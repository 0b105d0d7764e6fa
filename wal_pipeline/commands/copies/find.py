"""Finds the copies of a file on the stores, in whatever encoding they are stored."""

from collections.abc import Mapping

from wal_pipeline.archive.format.keys import Layout, StoredName
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.names import WalFileName, require_file_name


def find_copies(store: Store, layout: Layout, name: WalFileName) -> list[tuple[str, StoredName]]:
    """Return the keys of a file's copies on one store, of any codec. One LIST; a store keeps one copy as a rule."""
    found = ((item.key, layout.parse_wal_key(item.key)) for item in store.list(layout.wal_stem(name)))
    return [(key, stored) for key, stored in found if stored is not None and stored.file.name == name.name]


def find_copy(store: Store, layout: Layout, name: WalFileName) -> str | None:
    """Return the key of a store's object for a file, in whatever encoding. Raises: StoreError."""
    return next((key for key, _ in find_copies(store, layout, name)), None)


def which_stores_have(stores: Mapping[str, Store], layout: Layout, name: str) -> dict[str, bool]:
    """Return for each store whether it has the file, in any encoding; False where the store does not answer."""
    return {store_name: _has(store, layout, name) for store_name, store in stores.items()}


def _has(store: Store, layout: Layout, name: str) -> bool:
    try:
        return bool(find_copies(store, layout, require_file_name(name)))
    except StoreError:
        return False  # a proof waits on: the store may be back in time, and is named as missing where it is not
