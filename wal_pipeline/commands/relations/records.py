"""Keeps in the catalog how many bytes of lists each store has, for the cost."""

from wal_pipeline.catalog.values import Values


def put_list_bytes(values: Values, store: str, stored_bytes: int) -> None:
    """Keep the bytes of all lists that a store has. Raises: CatalogError."""
    values.put(f"relations/{store}", {"stored_bytes": stored_bytes})


def read_list_bytes(values: Values, store: str) -> int:
    """Return the bytes of all lists that a store had when it was verified last; 0 before that. Raises: CatalogError."""
    kept = values.get(f"relations/{store}")
    return 0 if kept is None else int(kept["stored_bytes"])
