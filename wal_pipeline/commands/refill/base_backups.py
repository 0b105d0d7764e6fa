"""Copies a base backup from a store that has it to one that lacks it: the same bytes, proved on both sides."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BaseBackupManifest
from wal_pipeline.archive.format.base_backup.manifest_json import parse_manifest
from wal_pipeline.archive.format.base_backup.report import REPORT_NAME
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.lease import LeasedWork
from wal_pipeline.commands.backup.confirm import require_whole
from wal_pipeline.commands.backup.lease import NoStoreError, held_lease
from wal_pipeline.commands.backup.objects import object_metadata
from wal_pipeline.commands.backup.part_uploader import UploadLimits
from wal_pipeline.commands.backup.restorable import BaseBackupRecorder, StoreOutcome
from wal_pipeline.commands.backup.upload import BackupUpload
from wal_pipeline.commands.copies.prove import prove
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.commands.inventory.manifests import read_manifest_bytes, read_report_bytes
from wal_pipeline.errors import BaseBackupError, DamagedCopyError, StoreError
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore

_READ_BYTES: Final = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefillResult:
    """The outcome of a refill: ``copied`` of the manifest's objects were missing, with ``copied_bytes``."""

    manifest: BaseBackupManifest
    source: str
    destination: str
    copied: int
    copied_bytes: int
    seconds: float


def refill_base_backup(
    backup_id: str,
    source: ClusterStore,
    destination: ClusterStore,
    *,
    limits: UploadLimits | None = None,
    read_back: bool = True,
    on_bytes: Callable[[int], object] = lambda _: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RefillResult:
    """Make ``destination``'s copy of a base backup complete from ``source``'s, the manifest last.

    Objects that are on the destination already are read back and kept; damaged ones are replaced. Each object's
    SHA-256 is compared as it is read from the source, before its copy is stored. ``on_bytes`` counts bytes copied.
    A lease keeps others from removing what is not complete yet.

    Raises: BaseBackupRunningError where another process stores it there; BaseBackupError where the manifest cannot be
    used or the destination has another one under that id;
    DamagedCopyError where the source's bytes are wrong; StoreError.
    """
    begun = time.monotonic()
    data = read_manifest_bytes(source, backup_id)
    manifest_key = source.layout.manifest_key(backup_id)
    where = f"{source.name}: {manifest_key}"
    manifest = parse_manifest(data, backup_id=backup_id, where=where)
    with (
        _leased(destination, backup_id, clock),
        BackupUpload([destination.store], limits or UploadLimits(), read_back=read_back) as upload,
    ):
        _check_manifest(destination, backup_id, data)
        absent = [item for item in manifest.objects if not _is_good(destination, backup_id, item)]
        for item in absent:
            _copy(upload, source, backup_id, item, on_bytes=on_bytes)
        _copy_report(upload, source, destination, backup_id)
        _wait(upload)
        require_whole(destination, manifest)
        upload.store_object(manifest_key, object_metadata(backup_id), lambda sink: sink(data))
        _wait(upload)
    copied_bytes = sum(item.size_bytes for item in absent)
    return RefillResult(manifest, source.name, destination.name, len(absent), copied_bytes, time.monotonic() - begun)


@contextmanager
def _leased(destination: ClusterStore, backup_id: str, clock: Callable[[], datetime]) -> Iterator[None]:
    """Hold a lease on the destination, and raise its own error where it does not take one."""
    try:
        with held_lease([destination], LeasedWork.REFILL, clock=clock, backup_id=backup_id):
            yield
    except NoStoreError as error:
        raise error.first from None


def _copy_report(upload: BackupUpload, source: ClusterStore, destination: ClusterStore, backup_id: str) -> None:
    """Copy what was said of the base backup, where the source has it and the destination lacks it."""
    key = source.layout.base_key(backup_id, REPORT_NAME)
    data = read_report_bytes(source, backup_id)
    if data is not None and destination.store.head(key) is None:
        upload.store_object(key, object_metadata(backup_id), lambda sink: sink(data))


def _wait(upload: BackupUpload) -> None:
    """Wait, and raise the destination's own error rather than one about all stores."""
    try:
        upload.wait()
    except BaseBackupError:
        raise next(iter(upload.failures.values())) from None


def _check_manifest(destination: ClusterStore, backup_id: str, expected: bytes) -> None:
    """A manifest that is there already must be the same: an object is never overwritten."""
    key = destination.layout.manifest_key(backup_id)
    if destination.store.head(key) is None:
        return
    if read_manifest_bytes(destination, backup_id) != expected:
        raise BaseBackupError(
            f"{destination.name}: object '{key}' differs from the source's",
            hint="Find out which of the two is damaged; delete that base backup from its store and refill again.",
        )


def _is_good(destination: ClusterStore, backup_id: str, item: BackupObject) -> bool:
    """Whether the destination has the object with the right bytes. One that is damaged is removed."""
    store, key = destination.store, destination.layout.base_key(backup_id, item.name)
    if store.head(key) is None:
        return False
    try:
        prove(store, key, item)
    except DamagedCopyError as error:
        _log.warning("%s; it is removed and stored again", error.message)
        store.delete(key)
        return False
    return True


def _copy(
    upload: BackupUpload,
    source: ClusterStore,
    backup_id: str,
    item: BackupObject,
    *,
    on_bytes: Callable[[int], object],
) -> None:
    key = source.layout.base_key(backup_id, item.name)

    def write(sink: Callable[[bytes], None]) -> None:
        with source.store.open(key) as stream:
            while data := stream.read(_READ_BYTES):
                sink(data)
                on_bytes(len(data))

    try:
        upload.store_object(key, object_metadata(backup_id), write, StoredBytes(item.size_bytes, item.sha256))
    except BaseBackupError as error:
        if upload.failures:
            raise next(iter(upload.failures.values())) from None
        raise DamagedCopyError(source.name, error.message, hint="Use another store as the source.") from error


@dataclass(frozen=True, slots=True)
class RefillOutcome:
    """A refill, and whether the base backup can be restored from its destination now."""

    result: RefillResult
    store: StoreOutcome


def refill_store(
    backup_id: str,
    destination: str,
    stores: Mapping[str, Store],
    layout: Layout,
    recorder: BaseBackupRecorder,
    *,
    limits: UploadLimits | None = None,
    read_back: bool = True,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> RefillOutcome:
    """Refill a base backup on ``destination`` from the first other store whose copy is good; record it.

    An incremental base backup's chain is not refilled with it: refill that first, oldest first.

    Raises: BaseBackupError where no other store has a good copy; StoreError of the destination.
    """
    reasons = []
    for name, source in stores.items():
        if name == destination:
            continue
        try:
            result = refill_base_backup(
                backup_id,
                ClusterStore(source, layout),
                ClusterStore(stores[destination], layout),
                limits=limits,
                read_back=read_back,
                on_bytes=on_bytes,
            )
        except (StoreError, BaseBackupError) as error:
            if isinstance(error, StoreError) and error.store == destination:
                raise
            _log.warning("%s", error.message)
            reasons.append(error.message)
        else:
            [settled] = recorder.settle(result.manifest, layout, [StoreOutcome(destination, stored=True)])
            return RefillOutcome(result, settled)
    raise BaseBackupError(
        f"base backup '{backup_id}' cannot be refilled on {destination}: {'; '.join(reasons) or 'no other store'}",
        hint="Take a new base backup.",
    )
