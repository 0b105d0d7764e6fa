"""Proves the objects on a store.

A copy counts as damaged or missing when a second look at it finds the same: callers remove what is damaged, and a bit
that changed on the way must not cost a good copy.
"""

import logging
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from wal_pipeline.commands.copies.stored_bytes import (
    ExpectedBytes,
    HashedStream,
    StoredBytes,
    require_bytes,
    require_size,
)
from wal_pipeline.errors import DamagedCopyError, ObjectMissingError
from wal_pipeline.stores.base import Store, StoredObject

_Found = TypeVar("_Found")
_log = logging.getLogger(__name__)


def prove(
    store: Store,
    key: str,
    expected: ExpectedBytes,
    *,
    read_back: bool = True,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> None:
    """Prove an object: read it to its end and hash it, or compare only its size where not ``read_back``.

    It is looked at twice before it counts as damaged or missing. ``on_bytes`` is called with the number of bytes of
    each read.

    Raises: DamagedCopyError, ObjectMissingError, StoreError.
    """

    def look() -> None:
        if not read_back:
            _of_right_size(store, key, expected)
            return
        with store.open(key) as stream:
            require_bytes(store, key, _read_to_end(stream, on_bytes), expected)

    look_twice(look)


def prove_described(
    store: Store,
    key: str,
    expected: ExpectedBytes,
    *,
    read_back: bool = True,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> StoredObject:
    """Prove an object as ``prove`` does, and return how the store describes the same bytes. Raises: as ``prove``."""

    def look() -> StoredObject:
        if not read_back:
            return _of_right_size(store, key, expected)
        with store.open_described(key) as (described, stream):
            require_bytes(store, key, _read_to_end(stream, on_bytes), expected)
        return described

    return look_twice(look)


def read_proved(store: Store, key: str, expected: ExpectedBytes) -> bytes:
    """Return an object's bytes, proved; for objects that fit into memory.

    It is looked at twice before it counts as damaged or missing.

    Raises: DamagedCopyError, ObjectMissingError, StoreError.
    """

    def look() -> bytes:
        with store.open(key) as stream:
            data = stream.read()
        require_bytes(store, key, StoredBytes.of(data), expected)
        return data

    return look_twice(look)


def head_proved(store: Store, key: str) -> StoredObject:
    """Return an object's description. It is looked at twice before it counts as missing.

    Raises: ObjectMissingError, StoreError.
    """
    return look_twice(lambda: _head(store, key))


def look_twice(look: Callable[[], _Found]) -> _Found:
    """Return what ``look`` returns, after a second look where the first one found a damaged or missing object.

    Raises: what ``look`` raised last.
    """
    try:
        return look()
    except (DamagedCopyError, ObjectMissingError) as error:
        _log.warning("%s; looking again", error.message)
    return look()  # outside, so that what the first look read is not held in memory


def _read_to_end(stream: BinaryIO, on_bytes: Callable[[int], object]) -> StoredBytes:
    hashed = HashedStream(stream)
    while data := hashed.read():
        on_bytes(len(data))
    return hashed.stored()


def _of_right_size(store: Store, key: str, expected: ExpectedBytes) -> StoredObject:
    described = _head(store, key)
    require_size(store, key, described.size_bytes, expected.size_bytes)
    return described


def _head(store: Store, key: str) -> StoredObject:
    found = store.head(key)
    if found is None:
        raise ObjectMissingError(store.name, f"object '{key}' does not exist")
    return found
