"""Compares stored bytes with what they must be, and says in one wording what is wrong with them."""

import hashlib
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from wal_pipeline.codec.decoder import MAX_STORED_BYTES
from wal_pipeline.errors import DamagedCopyError
from wal_pipeline.stores.base import Store

_READ_BYTES: Final = 1 << 20


class ExpectedBytes(Protocol):
    """Anything that knows the size in bytes and the SHA-256, as hex digits, that some bytes must have."""

    @property
    def size_bytes(self) -> int:
        """How many bytes there must be."""

    @property
    def sha256(self) -> str:
        """The SHA-256 that they must have, as hex digits."""


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """An object as stored: its size in bytes and its SHA-256 as hex digits."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> "StoredBytes":
        """Hash an object's bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


class WrongSizeError(DamagedCopyError):
    """A store has another number of bytes than were stored."""


class HashedStream:
    """Passes an object's stored bytes on, and hashes them as they are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size_bytes = 0
        self._sha256 = hashlib.sha256()

    def read(self, size: int = _READ_BYTES, /) -> bytes:
        """Return at most ``size`` bytes. Raises: what the stream raises."""
        data = self._stream.read(size)
        self._sha256.update(data)
        self._size_bytes += len(data)
        return data

    def stored(self) -> StoredBytes:
        """Read on to the end, and return what all the bytes are."""
        while self.read():
            pass
        return StoredBytes(self._size_bytes, self._sha256.hexdigest())


def require_bytes(store: Store, key: str, found: StoredBytes, expected: ExpectedBytes) -> None:
    """Refuse stored bytes that are not the expected ones. Raises: WrongSizeError, DamagedCopyError."""
    require_size(store, key, found.size_bytes, expected.size_bytes)
    fault = difference(key, found, expected)
    if fault is not None:
        raise DamagedCopyError(store.name, fault)


def require_size(store: Store, key: str, size_bytes: int, expected: int) -> None:
    """Refuse an object with another number of bytes than expected. Raises: WrongSizeError."""
    if size_bytes != expected:
        raise WrongSizeError(store.name, wrong_size(key, size_bytes, expected))


def require_wal_size(store: Store, key: str, size_bytes: int) -> None:
    """Refuse an object that is too large to be a copy of a WAL file, before it is read. Raises: DamagedCopyError."""
    if size_bytes > MAX_STORED_BYTES:
        raise DamagedCopyError(store.name, f"object '{key}' has {size_bytes} bytes, more than any WAL file")


def require_content(store: Store, key: str, content: bytes, expected: ExpectedBytes) -> None:
    """Refuse an object that opens to other bytes than the file's own. Raises: DamagedCopyError."""
    if len(content) != expected.size_bytes:
        raise DamagedCopyError(
            store.name, f"object '{key}' has content of {len(content)} bytes, expected {expected.size_bytes}"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != expected.sha256:
        raise DamagedCopyError(store.name, wrong_content(key, sha256, expected.sha256))


def difference(key: str, found: StoredBytes, expected: ExpectedBytes) -> str | None:
    """Say how an object's bytes differ from the expected ones; None where they do not."""
    if found.size_bytes != expected.size_bytes:
        return wrong_size(key, found.size_bytes, expected.size_bytes)
    if found.sha256 != expected.sha256:
        return f"object '{key}' has SHA-256 {found.sha256}, expected {expected.sha256}"
    return None


def wrong_size(key: str, size_bytes: int, expected: int) -> str:
    """Say that an object has another number of bytes than expected."""
    return f"object '{key}' has {size_bytes} bytes, expected {expected}"


def wrong_content(key: str, sha256: str, expected: str) -> str:
    """Say that an object opens to a file with another SHA-256 than expected."""
    return f"object '{key}' has content with SHA-256 {sha256}, expected {expected}"
