"""Reads one copy back from a store and proves that it is what its name promises, down to the file's own bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import Encoding, WalFile
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.commands.archive_get.wal_source import MAX_TEXT_BYTES
from wal_pipeline.commands.copies.prove import head_proved, prove, read_proved
from wal_pipeline.commands.copies.stored_bytes import (
    WrongSizeError,
    require_content,
    require_size,
    require_wal_size,
    wrong_content,
)
from wal_pipeline.commands.verify.results import Fault, FaultKind, Item, ItemKind
from wal_pipeline.errors import (
    CodecError,
    DamagedCopyError,
    InvalidWalFileError,
    InvalidWalNameError,
    ObjectMissingError,
)
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.joint import SegmentJoints, read_joints
from wal_pipeline.wal.names import MAX_WAL_SEGMENT_SIZE, FileKind, require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment, segment_size_of


@dataclass(frozen=True, slots=True)
class ReadCopy:
    """One copy that was read: its fault, or None, how many stored bytes were read, and the SHA-256 of its content.

    ``file`` describes a good copy of a WAL file, with the joints that its content has, or that its metadata says where
    it was not opened.
    """

    item: Item
    store: str
    fault: Fault | None
    read_bytes: int
    content_sha256: str | None = None
    file: WalFile | None = None


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

    def read_wal(self, place: ClusterStore, name: str, key: str, recorded: WalFile | None) -> ReadCopy:
        """Read one copy of a file; ``recorded`` is what the catalog knows of the file.

        Raises: StoreError where the store does not answer.
        """
        item = Item(place.layout.system_identifier, ItemKind.WAL_FILE, name)
        try:
            read_bytes, file = self._read(place, name, key, recorded)
        except _FaultError as found:
            return _faulty(place, item, found.kind, f"{place.name}: {found.message}")
        except (DamagedCopyError, ObjectMissingError) as error:
            return _faulty(place, item, _kind_of(error), error.message)
        return ReadCopy(item, place.name, None, read_bytes, file.sha256, file)

    def _read(self, place: ClusterStore, name: str, key: str, recorded: WalFile | None) -> tuple[int, WalFile]:
        store = place.store
        found = head_proved(store, key)
        try:
            file, encoding = from_metadata(key, found.metadata)
        except InvalidWalFileError as error:
            raise _FaultError(FaultKind.UNREADABLE, error.message) from None
        _check_says(key, file, place.layout, name)
        require_size(store, key, found.size_bytes, encoding.size_bytes)
        require_wal_size(store, key, found.size_bytes)
        data = read_proved(store, key, encoding)
        if not encoding.encrypted or self.identities:
            file = replace(file, joints=self._check_content(store, key, data, file, encoding) or file.joints)
        if recorded is not None and file.sha256 != recorded.sha256:
            raise _FaultError(FaultKind.OTHER_CONTENT, wrong_content(key, file.sha256, recorded.sha256))
        return len(data), file

    def _check_content(
        self, store: Store, key: str, data: bytes, file: WalFile, encoding: Encoding
    ) -> SegmentJoints | None:
        """Compare an object's content with what is promised, and return what a segment's pages say it continues."""
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
            require_content(store, key, content, file)
            if has_pages:
                header = check_segment(name, content[:LONG_HEADER_BYTES], len(content), {file.system_identifier})
                return read_joints(content, header, file.timeline) if file.kind is FileKind.SEGMENT else None
        except CodecError as error:
            raise _FaultError(FaultKind.CORRUPT, f"object '{key}' cannot be opened: {error.message}") from None
        except (InvalidWalFileError, InvalidWalNameError) as error:
            raise _FaultError(FaultKind.REPLACED, f"object '{key}' holds something else: {error.message}") from None
        return None


def _check_says(key: str, file: WalFile, layout: Layout, name: str) -> None:
    if (file.name, file.system_identifier) != (name, layout.system_identifier):
        raise _FaultError(
            FaultKind.REPLACED,
            f"object '{key}' says that it is '{file.name}' of system identifier {file.system_identifier}",
        )


def _faulty(place: ClusterStore, item: Item, kind: FaultKind, message: str) -> ReadCopy:
    return ReadCopy(item, place.name, Fault(item, place.name, kind, message), 0)


def _kind_of(error: DamagedCopyError | ObjectMissingError) -> FaultKind:
    if isinstance(error, ObjectMissingError):
        return FaultKind.MISSING
    return FaultKind.TRUNCATED if isinstance(error, WrongSizeError) else FaultKind.CORRUPT


def read_backup(place: ClusterStore, manifest: BaseBackupManifest) -> ReadCopy:
    """Read all objects of a base backup back and compare them with its manifest; every bad one is named.

    Raises: StoreError where the store does not answer.
    """
    item = Item(place.layout.system_identifier, ItemKind.BASE_BACKUP, manifest.backup_id)
    found: list[DamagedCopyError | ObjectMissingError] = []
    read_bytes = 0
    for part in manifest.objects:
        try:
            prove(place.store, place.layout.base_key(manifest.backup_id, part.name), part)
            read_bytes += part.size_bytes
        except (DamagedCopyError, ObjectMissingError) as error:
            found.append(error)
    if not found:
        return ReadCopy(item, place.name, None, read_bytes)
    reasons = "; ".join(error.message.removeprefix(f"{place.name}: ") for error in found)
    count = f"{len(found)} objects: " if len(found) > 1 else ""
    fault = Fault(item, place.name, _kind_of(found[0]), f"{place.name}: {count}{reasons}")
    return ReadCopy(item, place.name, fault, read_bytes)
