"""Read one copy back from a store and prove that it is what its name promises, down to the file's own bytes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wal_pipeline.archive.format.backup_manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import Encoding, WalFile
from wal_pipeline.codec.decoder import MAX_STORED_BYTES, open_stored
from wal_pipeline.commands.archive_get.wal_source import MAX_TEXT_BYTES
from wal_pipeline.commands.copies.prove import StoredBytes, verify_object
from wal_pipeline.commands.verify.results import Fault, FaultKind, Item, ItemKind
from wal_pipeline.errors import (
    CodecError,
    DamagedCopyError,
    InvalidWalFileError,
    InvalidWalNameError,
    ObjectMissingError,
)
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.names import MAX_WAL_SEGMENT_SIZE, FileKind, require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment, segment_size_of


@dataclass(frozen=True, slots=True)
class ReadCopy:
    """One copy that was read: its fault, or None, how many stored bytes were read, and the SHA-256 of its content."""

    item: Item
    store: str
    fault: Fault | None
    read_bytes: int
    content_sha256: str | None = None


class _FaultError(Exception):
    """A copy was found to be at fault."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class CopyReader:
    """Reads copies. Without ``identities`` encrypted copies are compared as stored, and not opened."""

    identities: Sequence[Any]

    def read_wal(self, store: Store, layout: Layout, name: str, key: str, recorded: WalFile | None) -> ReadCopy:
        """Read one copy of a file; ``recorded`` is what the catalog knows of the file.

        Raises: StoreError where the store does not answer.
        """
        item = Item(layout.system_identifier, ItemKind.WAL_FILE, name)
        try:
            read_bytes, content_sha256 = self._read(store, layout, name, key, recorded)
        except (_FaultError, ObjectMissingError) as found:
            kind = found.kind if isinstance(found, _FaultError) else FaultKind.MISSING
            message = found.message if isinstance(found, ObjectMissingError) else f"{store.name}: {found.message}"
            return ReadCopy(item, store.name, Fault(item, store.name, kind, message), 0)
        return ReadCopy(item, store.name, None, read_bytes, content_sha256)

    def _read(self, store: Store, layout: Layout, name: str, key: str, recorded: WalFile | None) -> tuple[int, str]:
        found = store.head(key)
        if found is None:
            raise ObjectMissingError(store.name, f"object '{key}' does not exist")
        try:
            file, encoding = from_metadata(key, found.metadata)
        except InvalidWalFileError as error:
            raise _FaultError(FaultKind.UNREADABLE, error.message) from None
        _check_says(key, file, layout, name)
        _compare(key, "bytes", found.size_bytes, encoding.size_bytes, FaultKind.TRUNCATED)
        if found.size_bytes > MAX_STORED_BYTES:
            raise _FaultError(
                FaultKind.REPLACED, f"object '{key}' has {found.size_bytes} bytes, more than any WAL file"
            )
        with store.open(key) as stream:
            data = stream.read()
        _compare(key, "bytes", len(data), encoding.size_bytes, FaultKind.TRUNCATED)
        _compare(key, "SHA-256", hashlib.sha256(data).hexdigest(), encoding.sha256, FaultKind.CORRUPT)
        if not encoding.encrypted or self.identities:
            self._check_content(key, data, file, encoding)
        if recorded is not None:
            _compare(key, "content with SHA-256", file.sha256, recorded.sha256, FaultKind.OTHER_CONTENT)
        return len(data), file.sha256

    def _check_content(self, key: str, data: bytes, file: WalFile, encoding: Encoding) -> None:
        name = require_file_name(file.name)
        is_segment = file.kind in (FileKind.SEGMENT, FileKind.PARTIAL)
        has_pages = is_segment and not file.is_unread
        try:
            content = open_stored(
                data,
                encoding.codec,
                encrypted=encoding.encrypted,
                identities=self.identities,
                max_size_bytes=min(file.size_bytes, MAX_WAL_SEGMENT_SIZE if is_segment else MAX_TEXT_BYTES),
                size_of_start=partial(segment_size_of, name) if has_pages else None,
            )
            sha256 = hashlib.sha256(content).hexdigest()
            _compare(key, "content with SHA-256", sha256, file.sha256, FaultKind.CORRUPT)
            if has_pages:
                check_segment(name, content[:LONG_HEADER_BYTES], len(content), {file.system_identifier})
        except CodecError as error:
            raise _FaultError(FaultKind.CORRUPT, f"object '{key}' cannot be opened: {error.message}") from None
        except (InvalidWalFileError, InvalidWalNameError) as error:
            raise _FaultError(FaultKind.REPLACED, f"object '{key}' holds something else: {error.message}") from None


def _check_says(key: str, file: WalFile, layout: Layout, name: str) -> None:
    if (file.name, file.system_identifier) != (name, layout.system_identifier):
        raise _FaultError(
            FaultKind.REPLACED,
            f"object '{key}' says that it is '{file.name}' of system identifier {file.system_identifier}",
        )


def _compare(key: str, what: str, found: object, expected: object, kind: FaultKind) -> None:
    if found != expected:
        text = f"{found} {what}" if what == "bytes" else f"{what} {found}"
        raise _FaultError(kind, f"object '{key}' has {text}, expected {expected}")


def read_backup(store: Store, layout: Layout, manifest: BaseBackupManifest) -> ReadCopy:
    """Read all objects of a base backup back and compare them with its manifest; the first fault ends it.

    Raises: StoreError where the store does not answer.
    """
    item = Item(layout.system_identifier, ItemKind.BASE_BACKUP, manifest.backup_id)
    for part in manifest.objects:
        expected = StoredBytes(part.size_bytes, part.sha256)
        key = layout.base_key(manifest.backup_id, part.name)
        try:
            verify_object(store, key, expected, thorough=True)
        except (DamagedCopyError, ObjectMissingError) as error:
            kind = FaultKind.MISSING if isinstance(error, ObjectMissingError) else FaultKind.CORRUPT
            return ReadCopy(item, store.name, Fault(item, store.name, kind, error.message), 0)
    return ReadCopy(item, store.name, None, manifest.stored_size_bytes)
