"""Prove that a base backup's object has the bytes that were sent."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from wal_pipeline.errors import DamagedCopyError, ObjectMissingError
from wal_pipeline.stores.base import Store

_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """An object as stored: its size in bytes and its SHA-256 as hex digits."""

    size_bytes: int
    sha256: str


def verify_object(
    store: Store, key: str, expected: StoredBytes, *, thorough: bool, on_bytes: Callable[[int], object] | None = None
) -> None:
    """Compare an object with what it must be: read back and hashed, or only its size where not ``thorough``.

    ``on_bytes`` is told how many bytes were read, each time. Raises: DamagedCopyError, ObjectMissingError, StoreError.
    """
    found = _hashed(store, key, on_bytes) if thorough else _headed(store, key, expected)
    if found.size_bytes != expected.size_bytes:
        raise DamagedCopyError(
            store.name, f"object '{key}' has {found.size_bytes} bytes, expected {expected.size_bytes}"
        )
    if found.sha256 != expected.sha256:
        raise DamagedCopyError(store.name, f"object '{key}' has SHA-256 {found.sha256}, expected {expected.sha256}")


def _hashed(store: Store, key: str, on_bytes: Callable[[int], object] | None) -> StoredBytes:
    digest, size_bytes = hashlib.sha256(), 0
    with store.open(key) as stream:
        while data := stream.read(_READ_BYTES):
            digest.update(data)
            size_bytes += len(data)
            if on_bytes is not None:
                on_bytes(len(data))
    return StoredBytes(size_bytes, digest.hexdigest())


def _headed(store: Store, key: str, expected: StoredBytes) -> StoredBytes:
    found = store.head(key)
    if found is None:
        raise ObjectMissingError(store.name, f"object '{key}' was stored and is not there")
    return StoredBytes(found.size_bytes, expected.sha256)
