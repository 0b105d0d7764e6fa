"""Reads one object of a base backup from a store and proves its bytes; gives the metadata that each has."""

from collections.abc import Sequence
from typing import Any, BinaryIO

from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BaseBackupManifest
from wal_pipeline.codec.stream_decoder import Sink, StoredStream, StreamOpener, open_stream
from wal_pipeline.commands.copies.stored_bytes import HashedStream, require_bytes
from wal_pipeline.errors import CodecError
from wal_pipeline.stores.cluster_store import ClusterStore


def object_metadata(backup_id: str) -> dict[str, str]:
    """Return the metadata of every object of a base backup; the manifest has the rest."""
    return {"base-format": "1", "base-backup-id": backup_id}


def open_object(
    place: ClusterStore,
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
    key = place.layout.base_key(manifest.backup_id, item.name)
    opener = StreamOpener(manifest.codec, item, sink)
    with place.store.open(key) as stream:
        source = HashedStream(stream)
        try:
            open_stream(StoredStream(source), opener, manifest.encrypted, identities)
        except CodecError as error:
            require_bytes(place.store, key, source.stored(), item)  # damage in the store is said as such
            raise CodecError(f"object '{key}': {error.message}", hint=error.hint) from error
        require_bytes(place.store, key, source.stored(), item)


def open_file(
    stream: BinaryIO, manifest: BaseBackupManifest, item: BackupObject, *, identities: Sequence[Any], sink: Sink
) -> None:
    """Pass the content of one object to ``sink`` from its stored bytes, which were verified before.

    Raises: CodecError.
    """
    open_stream(StoredStream(stream), StreamOpener(manifest.codec, item, sink), manifest.encrypted, identities)
