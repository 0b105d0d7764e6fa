"""Reads small objects of base backups into memory, among them the index of the files, from any store."""

import io
from collections.abc import Sequence
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, parse_index
from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BaseBackupManifest
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.errors import BaseBackupError, CodecError, RestoreError, StoreError
from wal_pipeline.stores.cluster_store import ClusterStore

_LARGEST_INDEX_BYTES: Final = 4 << 30


def read_small_object(
    manifest: BaseBackupManifest,
    item: BackupObject,
    places: Sequence[ClusterStore],
    identities: Sequence[Any],
    what: str,
) -> bytes:
    """Return the content of an object, from the first store that has it whole. ``what`` it is, for the error.

    Raises: RestoreError.
    """
    reasons: list[str] = []
    for place in places:
        content = bytearray()
        try:
            open_object(place, manifest, item, identities=identities, sink=content.extend)
        except (StoreError, CodecError) as error:
            reasons.append(error.message)
        else:
            return bytes(content)
    raise RestoreError(f"{what} cannot be read: {'; '.join(reasons)}")


def read_file_index(
    manifest: BaseBackupManifest, places: Sequence[ClusterStore], identities: Sequence[Any]
) -> FileIndex:
    """Return the index of a base backup of the method ``local``, from the first store that has it whole.

    Raises: RestoreError where there is none that can be used.
    """
    item = manifest.file_index
    what = f"the file index of base backup '{manifest.backup_id}'"
    if item is None or item.content_size_bytes > _LARGEST_INDEX_BYTES:
        raise RestoreError(f"{what} is {'missing' if item is None else 'too large'}")
    try:
        return parse_index(io.BytesIO(read_small_object(manifest, item, places, identities, what)), manifest)
    except BaseBackupError as error:
        raise RestoreError(error.message, hint=error.hint) from error
