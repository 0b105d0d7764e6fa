"""Compares the stored bytes of an object with what they must be."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from wal_pipeline.archive.records import Encoding
from wal_pipeline.errors import DamagedCopyError, ObjectMissingError
from wal_pipeline.stores.base import Store

_READ_BYTES: Final = 1 << 20
_log = logging.getLogger(__name__)


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


_CHUNK_BYTES = 1 << 20


def verify_stored(store: Store, key: str, encoding: Encoding, *, read_back: bool) -> None:
    """Compare an object's stored bytes with what they must be; without ``read_back`` only its size.

    A copy counts as damaged when a second look at it finds damage too: callers remove what is damaged, and a bit that
    changed on the way must not cost a good copy.

    Raises: DamagedCopyError, ObjectMissingError, StoreError.
    """
    look = _read_stored if read_back else _head_stored
    try:
        look(store, key, encoding)
    except (DamagedCopyError, ObjectMissingError) as error:
        _log.warning("%s; looking again", error.message)
        look(store, key, encoding)


def _head_stored(store: Store, key: str, encoding: Encoding) -> None:
    found = store.head(key)
    if found is None:
        raise ObjectMissingError(store.name, f"object '{key}' was stored and is not there")
    _compare(store, key, "size", found.size_bytes, encoding.size_bytes)


def _read_stored(store: Store, key: str, encoding: Encoding) -> None:
    with store.open(key) as stream:
        size_bytes, sha256 = digest(stream)
    _compare(store, key, "size", size_bytes, encoding.size_bytes)
    _compare(store, key, "SHA-256", sha256, encoding.sha256)


def digest(stream: BinaryIO) -> tuple[int, str]:
    """Return a stream's size in bytes and its SHA-256 as hex digits."""
    sha256, size_bytes = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK_BYTES):
        sha256.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, sha256.hexdigest()


def _compare(store: Store, key: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise DamagedCopyError(store.name, f"object '{key}' has {what} {found}, expected {expected}")
