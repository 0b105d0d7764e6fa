"""Heals one copy from a good one on another store.

A copy is removed only when a good one was just read elsewhere.
"""

import os
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Copy, CopyStatus
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.archive_push.events import CopyVerified
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.backup.restorable import BaseBackupRecorder, StoreOutcome
from wal_pipeline.commands.copies.find import find_copies
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.commands.copies.read import StoredSource, read_source
from wal_pipeline.commands.inventory.manifests import read_base_backup
from wal_pipeline.commands.inventory.survey import Records
from wal_pipeline.commands.refill.base_backups import refill_base_backup
from wal_pipeline.commands.verify.read_copy import CopyReader, read_backup
from wal_pipeline.commands.verify.results import Fault, FaultKind, ItemKind, Repair
from wal_pipeline.errors import CopyConflictError, DamagedCopyError, ObjectMissingError, StoreError, WalPipelineError
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name

_FOR_A_PERSON: Final = "whole copies with different content are never replaced: a person has to say which is right"
_STRANGE: Final = (FaultKind.REPLACED, FaultKind.UNREADABLE)


class Repairer:
    """Refills faulty copies. ``kept_folder`` takes the bytes of objects that are whole copies of something else."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        catalog: Catalog,
        reader: CopyReader,
        audit: AuditLog,
        *,
        clock: Callable[[], datetime],
        kept_folder: Path,
    ) -> None:
        self._stores = stores
        self._catalog = catalog
        self._reader = reader
        self._audit = audit
        self._clock = clock
        self._kept_folder = kept_folder
        self.refilled: list[CopyVerified] = []

    def repair(self, fault: Fault, layout: Layout, records: Records, sources: Collection[str]) -> Repair:
        """Heal one fault from the first of ``sources`` that has a good copy. Raises: CatalogError.

        A whole copy of other content is not touched: nothing but a person can know which one is right.
        """
        reasons = [_FOR_A_PERSON] if fault.kind is FaultKind.OTHER_CONTENT else []
        for name in [] if reasons else sources:
            try:
                source = ClusterStore(self._stores[name], layout)
                if fault.item.kind is ItemKind.WAL_FILE:
                    self._repair_wal(fault, records, source)
                else:
                    self._repair_backup(fault, source)
            except WalPipelineError as error:
                reasons.append(error.message)
                continue
            self._audit.write("repair", fault.item.name, "verified", store=fault.store, source=name, was=fault.message)
            return Repair(fault, name)
        reason = "; ".join(reasons) or "no store has a good copy"
        self._audit.write("repair", fault.item.name, "failed", store=fault.store, message=reason)
        return Repair(fault, None, reason)

    def remove_piece(self, place: ClusterStore, key: str, reason: str) -> None:
        """Remove a damaged piece whose bytes are proven to be somewhere else. Raises: StoreError."""
        place.store.delete(key)
        self._audit.write("repair", key, "removed", store=place.name, was=reason)

    def write_list_repair(self, key: str, store: str, source: str, was: str) -> None:
        """Write down that a list of relations was copied from a store that has it whole."""
        self._audit.write("repair", key, "verified", store=store, source=source, was=was)

    def _repair_wal(self, fault: Fault, records: Records, source: ClusterStore) -> None:
        name = require_file_name(fault.item.name)
        good = self._good_source(source, fault, records)
        target = ClusterStore(self._stores[fault.store], source.layout)
        for key, _ in find_copies(target, name):
            found = self._reader.read_wal(target, name.name, key, records.files.get(name.name) or good.file)
            if found.fault is not None:
                if found.fault.kind is FaultKind.OTHER_CONTENT:
                    raise CopyConflictError(target.name, f"object '{key}': {_FOR_A_PERSON}")
                self._remove(target.store, key, found.fault)
        key, encoding = store_copy(target, good.file, good.encoded, read_back=True)
        copy = Copy(
            name=name.name,
            system_identifier=target.layout.system_identifier,
            store=target.name,
            status=CopyStatus.VERIFIED,
            object_key=key,
            encoding=encoding,
            tries=1,
            verified_at=self._clock(),
        )
        self._catalog.files.record_verified(good.file, [copy])
        self.refilled.append(CopyVerified(good.file, copy, is_new=True, seconds={}))

    def _good_source(self, source: ClusterStore, fault: Fault, records: Records) -> StoredSource:
        """Read the source's copy and prove it, down to the file's own bytes. Raises: DamagedCopyError, StoreError."""
        name = require_file_name(fault.item.name)
        for key, _ in find_copies(source, name):
            found = self._reader.read_wal(source, name.name, key, records.files.get(name.name))
            if found.fault is not None:
                raise DamagedCopyError(source.name, found.fault.message.removeprefix(f"{source.name}: "))
        read = read_source(source, name)
        if read is None:
            raise ObjectMissingError(source.name, f"'{name.name}' is not there either")
        return read

    def _remove(self, target: Store, key: str, fault: Fault) -> None:
        if fault.kind in _STRANGE:
            self._keep_aside(target, key)
        target.delete(key)

    def _keep_aside(self, store: Store, key: str) -> None:
        """Keep what is under a wrong name: it may be the only copy of something else."""
        path = self._kept_folder / store.name / f"{self._clock():%Y%m%dT%H%M%SZ}" / key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, store.open(key) as stream:
            while data := stream.read(1 << 20):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _repair_backup(self, fault: Fault, source: ClusterStore) -> None:
        target, backup_id = ClusterStore(self._stores[fault.store], source.layout), fault.item.name
        if fault.kind is FaultKind.UNREADABLE:
            self._remove_manifest(fault, target, source)
        result = refill_base_backup(backup_id, source, target, read_back=True)
        recorder = BaseBackupRecorder(self._stores, self._catalog, self._clock, wal_timeout_seconds=0, archive=None)
        recorder.settle(result.manifest, target.layout, [StoreOutcome(target.name, stored=True)])

    def _remove_manifest(self, fault: Fault, target: ClusterStore, source: ClusterStore) -> None:
        """Make way for a good manifest, once the source's base backup was read to its end."""
        found = read_backup(source, read_base_backup(source, fault.item.name))
        if found.fault is not None:
            raise StoreError(source.name, found.fault.message.removeprefix(f"{source.name}: "))
        self._remove(target.store, target.layout.manifest_key(fault.item.name), fault)
