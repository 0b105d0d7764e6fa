"""Defines the contract that every store keeps and the contract suite tests."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import BinaryIO, Final

from wal_pipeline.errors import ObjectMissingError, StoreError

MAX_KEY_BYTES: Final = 1024
MAX_METADATA_BYTES: Final = 2048
_PART_BYTES: Final = 8 << 20
_KEY_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_METADATA_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*\Z")
_METADATA_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?\Z")


class PutOutcome(StrEnum):
    """The outcome of ``put_if_absent``."""

    CREATED = "created"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of one object, with the digests that the store must confirm.

    ``md5`` is the raw 16-byte digest, ``sha256`` the 64 hex digits, both of ``data`` as stored.
    """

    data: bytes | memoryview
    md5: bytes
    sha256: str

    @classmethod
    def of(cls, data: bytes | memoryview, sha256: str | None = None) -> "Body":
        """Make the body of ``data`` and compute the digests that are not known yet."""
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return cls(data, md5, hashlib.sha256(data).hexdigest() if sha256 is None else sha256)

    @property
    def size_bytes(self) -> int:
        """The object's size in bytes."""
        return memoryview(self.data).nbytes


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a store describes it.

    ``metadata`` is the object's user metadata: filled by ``head``, empty in a listing. ``etag`` has no quotes.
    """

    key: str
    size_bytes: int
    modified_at: datetime
    etag: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of an object, on a store that keeps versions. A delete marker has no bytes."""

    key: str
    version_id: str
    size_bytes: int
    modified_at: datetime
    is_latest: bool
    is_delete_marker: bool


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """An upload in parts that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    begun_at: datetime


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """One part of an upload in parts; ``number`` counts from 1."""

    number: int
    etag: str
    size_bytes: int
    md5: bytes


def check_key(store: str, key: str) -> str:
    """Return ``key`` where it can be a key of any store; ``store`` begins the error.

    Raises: StoreError.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or _KEY_CONTROL.search(key) or "\\" in key:
        raise _bad_key(store, key, "a relative path without empty, '.' or '..' parts, control characters or '\\'")
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise _bad_key(store, key, "text that UTF-8 can hold") from None
    if size_bytes > MAX_KEY_BYTES:
        raise _bad_key(store, key, f"at most {MAX_KEY_BYTES} bytes, found {size_bytes}")
    return key


def _bad_key(store: str, key: str, expected: str) -> StoreError:
    return StoreError(store, f"key {key!a} is not valid, expected {expected}")


def _read_part(stream: BinaryIO) -> bytes:
    """Read up to 8 MiB, fewer only at the end."""
    found = bytearray()
    while len(found) < _PART_BYTES and (data := stream.read(_PART_BYTES - len(found))):
        found += data
    return bytes(found)


def check_metadata(store: str, key: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of an object's metadata where every store can keep it.

    Raises: StoreError.
    """
    for name, value in metadata.items():
        if not _METADATA_NAME.match(name) or not _METADATA_VALUE.match(value):
            raise StoreError(
                store,
                f"object '{key}' has metadata {name!a} = {value!a}, expected a name of lower-case letters, "
                "digits and '-', and a value of printable ASCII without spaces at its ends",
            )
    size_bytes = sum(len(name) + len(value) for name, value in metadata.items())
    if size_bytes > MAX_METADATA_BYTES:
        raise StoreError(
            store, f"object '{key}' has {size_bytes} bytes of metadata, expected at most {MAX_METADATA_BYTES}"
        )
    return dict(metadata)


class Store(ABC):
    """A flat place for objects under string keys. One store is one bucket.

    The contract, for every store:

    - A call either does its work durably, or raises a ``StoreError`` whose message begins with the store's name.
      ``StoreUnavailableError`` means that the same call may succeed later; the store has already made the retries
      that are worth making at once.
    - A put is never partly visible: the object is there whole with the given metadata, or is not there.
      Bytes that do not match ``Body.md5`` are refused with ``DamagedCopyError`` and leave no object, and the store's
      answer is compared with it. ``Body.sha256`` is signed and sent; not every S3 server compares it.
    - An object is never overwritten.
    - ``head``, ``open`` and ``list`` see a put as soon as it returned.
    - ``list`` is in ascending order of the keys' UTF-8 bytes, however many there are.
    - Keys are relative, ``/``-separated, without empty, ``.`` or ``..`` parts (``check_key``); others are refused
      with ``StoreError``. Metadata names are lower-case ASCII with ``-``, values printable ASCII; 2 KiB together
      (``check_metadata``).
    - Every method may be called from several threads at once.
    """

    name: str

    @abstractmethod
    def put_if_absent(self, key: str, body: Body, metadata: Mapping[str, str]) -> PutOutcome:
        """Store ``body`` under ``key`` unless an object is there already.

        Where one is, whatever its content, this returns ``EXISTS`` and changes nothing: the caller compares.

        Raises: StoreUnavailableError, StoreAccessError, BucketMissingError, DamagedCopyError.
        """

    @abstractmethod
    def open(self, key: str, *, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Read the stored bytes as a stream, from byte ``start`` on.

        A stream that is cut short raises ``StoreUnavailableError`` from ``read``, never an early end. From the
        object's size on, the stream is empty.

        Raises: ObjectMissingError, and as ``put_if_absent``.
        """

    @abstractmethod
    def head(self, key: str) -> StoredObject | None:
        """Describe one object with its metadata; ``None`` only where the store answered that there is none."""

    @contextmanager
    def open_described(self, key: str) -> Iterator[tuple[StoredObject, BinaryIO]]:
        """Open an object as ``open`` does, and describe that same object as ``head`` does; in one request if possible.

        Raises: as ``open``.
        """
        described = self.head(key)
        if described is None:
            raise ObjectMissingError(self.name, f"object '{key}' does not exist")
        with self.open(key) as stream:
            yield described, stream

    @abstractmethod
    def list(self, prefix: str, *, start_after: str = "") -> Iterator[StoredObject]:
        """Yield all objects whose keys begin with ``prefix`` and are greater than ``start_after``."""

    @abstractmethod
    def delete(self, key: str) -> int:
        """Remove the object for good, with all its versions, and return how many versions were removed.

        0 where there was none. Delete markers count as versions. Raises: ObjectLockedError, and as ``put_if_absent``.
        """

    @property
    @abstractmethod
    def keeps_versions(self) -> bool:
        """Whether a delete by key alone, or another put, leaves bytes that only ``versions`` shows."""

    @abstractmethod
    def versions(self, prefix: str, *, start_after: str = "") -> Iterator[StoredVersion]:
        """Yield every version and delete marker below ``prefix`` whose key is greater than ``start_after``.

        Ordered as ``list`` is, each key's newest first; on a store without versions, its objects.
        """

    @abstractmethod
    def begin_upload(self, key: str, metadata: Mapping[str, str]) -> MultipartUpload:
        """Begin an upload in parts. Nothing is visible under ``key`` before ``complete_upload``."""

    @abstractmethod
    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> UploadedPart:
        """Store one part. All parts but the last have equal sizes of at least 5 MiB; at most 10,000 parts."""

    @abstractmethod
    def complete_upload(self, upload: MultipartUpload, parts: tuple[UploadedPart, ...]) -> PutOutcome:
        """Make the object from its parts unless one is there already (then the upload is aborted)."""

    @abstractmethod
    def abort_upload(self, upload: MultipartUpload) -> None:
        """Drop an upload and its parts; no error where it does not exist any more."""

    @abstractmethod
    def uploads(self, prefix: str) -> Iterator[MultipartUpload]:
        """Yield the uploads below ``prefix`` that were begun and neither completed nor aborted."""

    def copy(self, source_key: str, key: str, metadata: Mapping[str, str]) -> PutOutcome:
        """Make ``key`` with the bytes of another object of this store, and this metadata; as ``put_if_absent`` does.

        A store that can do so copies on its side. This one reads the object and puts it again. The bytes are not
        compared: the caller proves the copy.

        Raises: ObjectMissingError where there is no source, and as ``put_if_absent``.
        """
        with self.open(source_key) as stream:
            first, second = _read_part(stream), _read_part(stream)
            if not second:
                return self.put_if_absent(key, Body.of(first), metadata)
            upload = self.begin_upload(key, metadata)
            try:
                parts: list[UploadedPart] = []
                waiting = [first, second]
                while waiting:
                    parts.append(self.upload_part(upload, len(parts) + 1, Body.of(waiting.pop(0))))
                    if not waiting and (data := _read_part(stream)):
                        waiting.append(data)
                return self.complete_upload(upload, tuple(parts))
            except StoreError:
                self.abort_upload(upload)
                raise

    @abstractmethod
    def check_access(self) -> None:
        """Check that the bucket answers and the credentials are accepted; raise the error that says why not."""
