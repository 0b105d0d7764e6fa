"""Reads one copy of a file from a store and proves it."""

from dataclasses import dataclass

from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import WalFile
from wal_pipeline.codec.encoder import Encoded
from wal_pipeline.commands.copies.find import find_copy
from wal_pipeline.commands.copies.prove import read_proved
from wal_pipeline.commands.copies.stored_bytes import require_wal_size
from wal_pipeline.errors import DamagedCopyError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import WalFileName


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A file's bytes as they are to be stored, and where they came from (a store's name, or ``spool``)."""

    file: WalFile
    encoded: Encoded
    origin: str


def read_source(place: ClusterStore, name: WalFileName) -> StoredSource | None:
    """Read a file's copy from a store and prove its stored bytes; None where the store has none.

    Raises: DamagedCopyError, InvalidWalFileError where its metadata cannot be read, StoreError.
    """
    store, key = place.store, find_copy(place, name)
    found = store.head(key) if key is not None else None
    if key is None or found is None:
        return None
    file, encoding = from_metadata(key, found.metadata)
    if file.name != name.name:
        raise DamagedCopyError(store.name, f"object '{key}' says that it is '{file.name}', expected '{name.name}'")
    require_wal_size(store, key, found.size_bytes)
    data = read_proved(store, key, encoding)
    return StoredSource(file, Encoded(Body(data, bytes.fromhex(encoding.md5), encoding.sha256), encoding), store.name)
