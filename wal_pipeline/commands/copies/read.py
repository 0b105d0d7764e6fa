"""Reads one copy of a file from a store and checks it."""

import hashlib
from dataclasses import dataclass

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import WalFile
from wal_pipeline.codec.decoder import MAX_STORED_BYTES
from wal_pipeline.codec.encoder import Encoded
from wal_pipeline.commands.copies.find import find_copy
from wal_pipeline.errors import (
    DamagedCopyError,
)
from wal_pipeline.stores.base import Body, Store
from wal_pipeline.wal.names import WalFileName


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A file's bytes as they are to be stored, and where they came from (a store's name, or ``spool``)."""

    file: WalFile
    encoded: Encoded
    origin: str


def read_source(store: Store, layout: Layout, name: WalFileName) -> StoredSource | None:
    """Read a file's copy from a store and check its stored bytes; None where the store has none.

    Raises: DamagedCopyError, InvalidWalFileError where its metadata cannot be read, StoreError.
    """
    key = find_copy(store, layout, name)
    found = store.head(key) if key is not None else None
    if key is None or found is None:
        return None
    file, encoding = from_metadata(key, found.metadata)
    if found.size_bytes > MAX_STORED_BYTES:
        raise DamagedCopyError(store.name, f"object '{key}' has {found.size_bytes} bytes, more than any WAL file")
    with store.open(key) as stream:
        data = stream.read()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != encoding.sha256 or file.name != name.name:
        raise DamagedCopyError(store.name, f"object '{key}' has SHA-256 {sha256}, expected {encoding.sha256}")
    return StoredSource(file, Encoded(Body(data, bytes.fromhex(encoding.md5), sha256), encoding), store.name)
