"""Ask the stores themselves which of them has a file's copy."""

from collections.abc import Mapping

from wal_pipeline.archive.layout import Layout
from wal_pipeline.commands import archive_get
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.names import require_file_name


def find_copies(stores: Mapping[str, Store], layout: Layout, name: str) -> dict[str, bool]:
    """Return for each store whether it has the file, in any encoding; False where the store does not answer."""
    return {store_name: _has(store, layout, name) for store_name, store in stores.items()}


def _has(store: Store, layout: Layout, name: str) -> bool:
    try:
        return bool(archive_get.find_copies(store, layout, require_file_name(name)))
    except StoreError:
        return False  # a proof waits on: the store may be back in time, and is named as missing where it is not
