"""Reads one object of a base backup from a store and proves its bytes."""

import hashlib
from collections.abc import Sequence
from typing import Any, BinaryIO

from wal_pipeline.archive.format.backup_manifest import BackupObject, BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.codec.stream_decoder import READ_BYTES, Sink, StoredStream, StreamOpener, open_stream
from wal_pipeline.errors import CodecError, DamagedCopyError
from wal_pipeline.stores.base import Store


def open_object(
    store: Store,
    layout: Layout,
    manifest: BaseBackupManifest,
    item: BackupObject,
    *,
    identities: Sequence[Any],
    sink: Sink,
) -> None:
    """Pass the content of one object to ``sink`` in bounded memory.

    What the sink was given counts only if this returns: the checksum is known at the end.

    Raises: DamagedCopyError where the stored bytes are not those of the manifest; CodecError; StoreError.
    """
    key = layout.base_key(manifest.backup_id, item.name)
    opener = StreamOpener(manifest.codec, item, sink)
    with store.open(key) as stream:
        source = _HashedStream(stream)
        try:
            open_stream(source, opener, manifest.encrypted, identities)
        except CodecError as error:
            _require_stored(store, key, item, source)  # damage in the store is said as such
            raise CodecError(f"object '{key}': {error.message}", hint=error.hint) from error
        _require_stored(store, key, item, source)


class _HashedStream(StoredStream):
    """The stored bytes, hashed as they are read."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()

    def read(self, size: int = READ_BYTES) -> bytes:
        data = super().read(size)
        self._sha256.update(data)
        self.size_bytes += len(data)
        return data

    def sha256(self) -> str:
        """Return the digest of all stored bytes, reading on to the end."""
        while self.read():
            pass
        return self._sha256.hexdigest()


def _require_stored(store: Store, key: str, item: BackupObject, source: _HashedStream) -> None:
    sha256 = source.sha256()
    if source.size_bytes != item.size_bytes or sha256 != item.sha256:
        raise DamagedCopyError(
            store.name,
            f"object '{key}' has {source.size_bytes} bytes with SHA-256 {sha256}, "
            f"expected {item.size_bytes} bytes with {item.sha256}",
        )


def open_file(
    stream: BinaryIO, manifest: BaseBackupManifest, item: BackupObject, *, identities: Sequence[Any], sink: Sink
) -> None:
    """Pass the content of one object to ``sink`` from its stored bytes, which were verified before.

    Raises: CodecError.
    """
    open_stream(StoredStream(stream), StreamOpener(manifest.codec, item, sink), manifest.encrypted, identities)
