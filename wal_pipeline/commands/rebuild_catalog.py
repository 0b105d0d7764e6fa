"""Makes the catalog again from the stores alone.

What is recorded of a WAL object is what its own metadata says. Its status is VERIFIED where its size is the one that
was stored: a put is never partly visible, and was checked against its digests. Its content is **not** read: such a copy
has no ``verified_at``, unless an older record of the same bytes has one. ``wal-pipeline verify --deep`` reads content.

Nothing in a store is changed. Each batch is written by itself, and what is not in a store any more is forgotten only
after that store was read to its end: a rebuild that is cut off leaves a catalog that can be used, and is run again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Copy, CopyStatus, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.files import FileKey
from wal_pipeline.commands.continuity.archived import ArchivedWal, record_breaks
from wal_pipeline.commands.copies.stored_bytes import wrong_size
from wal_pipeline.commands.inventory.listing import StoreListing
from wal_pipeline.commands.inventory.scan import ScannedWal, StoreScan
from wal_pipeline.commands.inventory.wholeness import BackupFault, BackupFaultKind
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.base import Store

DEFAULT_WORKERS: Final = 16
_STATUSES: Final = {BackupFaultKind.INCOMPLETE: CopyStatus.MISSING, BackupFaultKind.WRONG_SIZE: CopyStatus.DAMAGED}


@dataclass(frozen=True, slots=True)
class RebuiltStore:
    """The result of reading one store. ``error`` says why it was not read to its end: then nothing of it was forgotten.

    ``damaged``: objects with another size than stored, or whose file has other content on another store. ``faults``:
    objects that could not be read. ``foreign``: keys that we never make. ``unfinished``: base backups
    without a manifest. ``forgotten``: files and base backups that were recorded and are not there any more.
    """

    store: str
    copies: int
    base_backups: int
    damaged: tuple[str, ...]
    faults: tuple[str, ...]
    foreign: tuple[str, ...]
    unfinished: tuple[str, ...]
    forgotten: tuple[str, ...]
    error: str | None


@dataclass(frozen=True, slots=True)
class RebuildResult:
    """The results of a rebuild, store by store, and the system identifiers that are known now."""

    stores: tuple[RebuiltStore, ...]
    system_identifiers: tuple[int, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every store was read to its end."""
        return all(store.error is None for store in self.stores)


def rebuild(
    stores: Sequence[Store],
    catalog: Catalog,
    prefix: str,
    cluster: str,
    *,
    workers: int = DEFAULT_WORKERS,
    on_object: Callable[[str], None] = lambda _store: None,
) -> RebuildResult:
    """Make the cluster's records of files, copies and base backups again from what the stores hold.

    A store that does not answer keeps its records and is named in the result. ``on_object`` is called with the
    store's name for each object listed; ``workers`` objects of a store are asked at once.

    Raises: CatalogError.
    """
    contents: dict[FileKey, str] = {}
    joints: dict[FileKey, WalFile] = {}
    rebuilt = tuple(
        _StoreRebuild(StoreScan(store, prefix, cluster, on_object), catalog, contents, joints).run(workers)
        for store in stores
    )
    archived = ArchivedWal({store.name: store for store in stores}, catalog, partial(Layout, prefix, cluster))
    _record_breaks(catalog, archived, joints)
    return RebuildResult(rebuilt, tuple(catalog.system_identifiers.known()))


def _record_breaks(catalog: Catalog, archived: ArchivedWal, joints: Mapping[FileKey, WalFile]) -> None:
    """Compare each segment with the one before it, as their objects describe them, and record what does not fit."""
    for system_identifier in {identifier for identifier, _ in joints}:
        files = [file for (identifier, _), file in joints.items() if identifier == system_identifier]
        names = [file.name for file in files]
        for timeline in {file.timeline for file in files}:
            archived.look_up_history(system_identifier, timeline)
        histories = {
            timeline: history
            for timeline, history in archived.cluster(system_identifier).histories.items()
            if history is not None
        }
        found = ArchiveContents.of(system_identifier, files=files, copies={"": names}, histories=histories)
        record_breaks(catalog, system_identifier, names, found.breaks)


class _StoreRebuild:
    """The rebuild of one store's records. ``contents``: each file's SHA-256 as the stores read before have it.

    ``joints`` get the segments that say what they continue.
    """

    def __init__(
        self, scan: StoreScan, catalog: Catalog, contents: dict[FileKey, str], joints: dict[FileKey, WalFile]
    ) -> None:
        self._joints = joints
        self._scan = scan
        self._store = scan.store.name
        self._catalog = catalog
        self._contents = contents
        self._begun_at = catalog.now()
        self._keys: dict[FileKey, str] = {}
        self._backups: set[FileKey] = set()
        self._damaged: list[str] = []
        self._unfinished: list[str] = []
        self._faults: list[str] = []

    def run(self, workers: int) -> RebuiltStore:
        error, forgotten = None, []
        try:
            for batch in self._scan.wal(workers):
                self._record_wal(batch)
            self._record_base_backups()
            forgotten = self._forget()
        except StoreError as failure:
            error = failure.message
        return RebuiltStore(
            store=self._store,
            copies=len(self._keys),
            base_backups=len(self._backups),
            damaged=tuple(self._damaged),
            faults=(*self._scan.faults, *self._faults),
            foreign=tuple(self._scan.foreign),
            unfinished=tuple(self._unfinished),
            forgotten=tuple(forgotten),
            error=error,
        )

    def _record_wal(self, batch: Sequence[ScannedWal]) -> None:
        self._add_system_identifiers()
        before = self._catalog.files.copies_of({item.file.name for item in batch})
        files: dict[FileKey, WalFile] = {}
        copies = []
        for item in batch:
            key = (item.file.system_identifier, item.file.name)
            if self._keys.setdefault(key, item.key) != item.key:
                self._scan.faults.append(f"{self._store}: object '{item.key}' is a second copy of '{self._keys[key]}'")
                continue
            copy = self._copy(item, before.get(key, {}).get(self._store))
            copies.append(copy)
            if copy.status is CopyStatus.VERIFIED:
                self._contents.setdefault(key, item.file.sha256)
            if self._contents.get(key, item.file.sha256) == item.file.sha256:
                files[key] = item.file
                if item.file.joints is not None:
                    self._joints.setdefault(key, item.file)
        self._catalog.files.record_found(list(files.values()), copies)

    def _copy(self, item: ScannedWal, before: Copy | None) -> Copy:
        file = item.file
        copy = Copy(
            name=file.name,
            system_identifier=file.system_identifier,
            store=self._store,
            status=CopyStatus.VERIFIED,
            object_key=item.key,
            encoding=item.encoding,
        )
        fault = self._fault(item)
        if fault is not None:
            self._damaged.append(fault)
            return replace(copy, status=CopyStatus.DAMAGED, last_error=fault)
        return before if before is not None and _is_same(before, copy) else copy

    def _fault(self, item: ScannedWal) -> str | None:
        expected = self._contents.get((item.file.system_identifier, item.file.name), item.file.sha256)
        if item.size_bytes != item.encoding.size_bytes:
            return f"{self._store}: {wrong_size(item.key, item.size_bytes, item.encoding.size_bytes)}"
        if item.file.sha256 != expected:
            return (
                f"{self._store}: object '{item.key}' holds content {item.file.sha256}, "
                f"another store's copy of '{item.file.name}' holds {expected}"
            )
        return None

    def _record_base_backups(self) -> None:
        verified = self._catalog.files.names_on(self._store)
        before = {
            (copy.system_identifier, copy.backup_id): copy
            for copy in self._catalog.base_backups.copies()
            if copy.store == self._store
        }
        for layout, listing in self._scan.listings():
            for backup_id, fault in listing.faults.items():
                self._note(layout, backup_id, fault)
            for manifest in listing.manifests.values():
                backup = manifest.record()
                key = (backup.system_identifier, backup.backup_id)
                self._backups.add(key)
                copy = self._backup_copy(listing, manifest, before.get(key), verified)
                self._catalog.base_backups.record(backup, [copy])
        self._add_system_identifiers()

    def _note(self, layout: Layout, backup_id: str, fault: BackupFault) -> None:
        if fault.kind is BackupFaultKind.UNFINISHED:
            self._unfinished.append(f"{layout.base_root}{backup_id}")
        elif fault.kind is BackupFaultKind.UNREADABLE:
            self._faults.append(f"{self._store}: {fault.reason}")
        else:
            self._damaged.append(f"{self._store}: {fault.reason}")

    def _backup_copy(
        self,
        listing: StoreListing,
        manifest: BaseBackupManifest,
        before: BaseBackupCopy | None,
        verified: set[FileKey],
    ) -> BaseBackupCopy:
        fault = listing.faults.get(manifest.backup_id)
        status = CopyStatus.VERIFIED if fault is None else _STATUSES[fault.kind]
        needed = {(manifest.system_identifier, name.name) for name in manifest.required_segments}
        restorable_at: datetime | None = None
        if status is CopyStatus.VERIFIED and needed <= verified:
            restorable_at = (before and before.restorable_at) or self._begun_at
        same = before is not None and before.status is status
        found = listing.base[manifest.backup_id].values()
        return BaseBackupCopy(
            backup_id=manifest.backup_id,
            system_identifier=manifest.system_identifier,
            store=self._store,
            status=status,
            objects=len(found),
            stored_size_bytes=sum(item.size_bytes for item in found),
            restorable_at=restorable_at,
            last_error=None if fault is None else f"{self._store}: {fault.reason}",
            verified_at=before.verified_at if before and same else None,
            last_deep_verified_at=before.last_deep_verified_at if before and same else None,
        )

    def _add_system_identifiers(self) -> None:
        for system_identifier in self._scan.system_identifiers - set(self._catalog.system_identifiers.known()):
            self._catalog.system_identifiers.add(system_identifier, f"found on {self._store}", self._begun_at)

    def _forget(self) -> list[str]:
        """Forget what was recorded before the rebuild began and was not seen in it."""
        forgotten = []
        for system_identifier in self._catalog.system_identifiers.known():
            names = {name for owner, name in self._keys if owner == system_identifier}
            forgotten += self._catalog.files.remove_unseen(system_identifier, self._store, self._begun_at, names)
            ids = {backup_id for owner, backup_id in self._backups if owner == system_identifier}
            forgotten += self._catalog.base_backups.remove_unseen(system_identifier, self._store, self._begun_at, ids)
        return forgotten


def _is_same(before: Copy, found: Copy) -> bool:
    """Whether an older record is of the very bytes that were found: it knows more of them than the object says."""
    known = before.status in (CopyStatus.VERIFIED, CopyStatus.DAMAGED)
    same_bytes = before.encoding and found.encoding and before.encoding.sha256 == found.encoding.sha256
    return bool(known and same_bytes and before.object_key == found.object_key)
