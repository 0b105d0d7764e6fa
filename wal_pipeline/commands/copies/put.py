"""Stores one copy of a file on one store and proves its bytes. Every copy of a WAL file is made here."""

import logging
from contextlib import AbstractContextManager, nullcontext

from wal_pipeline.archive.format.object_metadata import from_metadata, to_metadata
from wal_pipeline.archive.records import Copy, Encoding, WalFile
from wal_pipeline.codec.encoder import Encoded
from wal_pipeline.commands.copies.prove import head_proved, prove
from wal_pipeline.errors import CopyConflictError, DamagedCopyError, InvalidWalFileError, ObjectMissingError
from wal_pipeline.stores.base import PutOutcome, Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name

_log = logging.getLogger(__name__)


def store_copy(
    place: ClusterStore,
    file: WalFile,
    encoded: Encoded,
    *,
    read_back: bool,
    found: str | None = None,
    uploads: AbstractContextManager[object] | None = None,
) -> tuple[str, Encoding]:
    """Make sure that the store has a verified copy of ``file``; return its key and how it is encoded there.

    ``found`` is the key of the copy that the store was seen to have, in whatever encoding. ``uploads`` is held while
    bytes are sent, and not while they are read back. Where a copy of the same
    content is there already, it is verified and adopted. A copy whose stored bytes are not those that its own metadata
    promises, read twice, is damaged: it is removed and stored again, for the good bytes are at hand.

    Raises: CopyConflictError where the store has other content under that name; StoreError.
    """
    store = place.store
    if found is not None:
        try:
            return found, adopt_copy(store, found, file, read_back=read_back)
        except ObjectMissingError:
            _log.info("%s: object '%s' went since it was seen", store.name, found)
        except DamagedCopyError:
            store.delete(found)
    name, encoding = require_file_name(file.name), encoded.encoding
    key = place.layout.wal_key(name, encoding.codec, encrypted=encoding.encrypted)
    metadata = to_metadata(file, encoding)
    try:
        with uploads or nullcontext():
            outcome = store.put_if_absent(key, encoded.body, metadata)
        if outcome is PutOutcome.EXISTS:
            return key, adopt_copy(store, key, file, read_back=read_back)
        prove(store, key, encoding, read_back=read_back)
    except (DamagedCopyError, ObjectMissingError):
        store.delete(key)
        store.put_if_absent(key, encoded.body, metadata)
        prove(store, key, encoding, read_back=read_back)
    return key, encoding


def is_held(store: Store, copy: Copy, file: WalFile) -> bool:
    """Whether a store still has the copy that is recorded, by its size and the digests in its metadata.

    Raises: StoreError.
    """
    found = store.head(copy.object_key)
    if found is None:
        return False
    try:
        stored_file, encoding = from_metadata(copy.object_key, found.metadata)
    except InvalidWalFileError:
        return False
    recorded = copy.encoding or encoding
    return (
        (stored_file.name, stored_file.sha256) == (file.name, file.sha256)
        and encoding.sha256 == recorded.sha256
        and found.size_bytes == encoding.size_bytes == recorded.size_bytes
    )


def adopt_copy(store: Store, key: str, file: WalFile, *, read_back: bool) -> Encoding:
    """Verify a copy that is there already, and return how it is encoded.

    Raises: CopyConflictError, DamagedCopyError, ObjectMissingError, StoreError.
    """
    found = head_proved(store, key)
    try:
        stored_file, encoding = from_metadata(key, found.metadata)
    except InvalidWalFileError as error:
        raise CopyConflictError(store.name, error.message, hint=error.hint) from error
    if stored_file.sha256 != file.sha256 or stored_file.name != file.name:
        raise CopyConflictError(
            store.name,
            f"object '{key}' has content with SHA-256 {stored_file.sha256}, the spool's file has {file.sha256}",
            hint="A copy is never overwritten. Two clusters archive under one name, or a server was set back "
            "without a new timeline: find out which before you go on.",
        )
    prove(store, key, encoding, read_back=read_back)
    return encoding
