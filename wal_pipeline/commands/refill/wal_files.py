"""Give a store the copies that it lacks: from the spool, or byte for byte from a verified copy on another store."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Copy, CopyStatus, WalFile
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.archive_push.events import CopyFailed, CopyVerified
from wal_pipeline.commands.archive_push.prepare import Preparer
from wal_pipeline.commands.cluster_identity import ClusterIdentity
from wal_pipeline.commands.copies.find import find_copy
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.commands.copies.read import StoredSource, read_source
from wal_pipeline.errors import (
    DamagedCopyError,
    InvalidWalFileError,
    ObjectMissingError,
    SpoolError,
    StoreError,
    WalPipelineError,
)
from wal_pipeline.spool import Spool
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import WalFileName, require_file_name


class Refiller:
    """Copies files to stores that lack them."""

    def __init__(
        self,
        *,
        stores: Mapping[str, Store],
        catalog: Catalog,
        identity: ClusterIdentity,
        layout: Callable[[int], Layout],
        clock: Callable[[], datetime],
        read_back: bool,
        concurrency: int,
        spool: Spool | None,
        preparer: Preparer | None,
    ) -> None:
        """``spool`` and ``preparer`` are None where only the stores are at hand."""
        self._stores = stores
        self._catalog = catalog
        self._identity = identity
        self._layout = layout
        self._clock = clock
        self._read_back = read_back
        self._concurrency = concurrency
        self._spool = spool
        self._preparer = preparer

    def refill(self, names: Collection[str], targets: Sequence[str]) -> Iterator[CopyVerified | CopyFailed]:
        """Make sure that each target store holds each file, and yield what became of each copy.

        Raises: InvalidWalNameError for a name that is not PostgreSQL's, CatalogError.
        """
        ordered = sorted((require_file_name(name) for name in names), key=lambda name: name.order)
        self._identity.refresh()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="refill") as pool:
            for found in pool.map(lambda name: self._refill_one(name, targets), ordered):
                for event in found:
                    self._record(event)
                    yield event

    def _refill_one(self, name: WalFileName, targets: Sequence[str]) -> list[CopyVerified | CopyFailed]:
        events: list[CopyVerified | CopyFailed] = []
        for target in targets:
            try:
                events.append(self._copy_to(name, target))
            except WalPipelineError as error:
                events.append(CopyFailed(name.name, target, error.message))
        return events

    def _copy_to(self, name: WalFileName, target: str) -> CopyVerified:
        begun = time.monotonic()
        source = self._source(name, target) or self._own_copy(name, target)
        place = ClusterStore(self._stores[target], self._layout(source.file.system_identifier))
        found = find_copy(place, name)
        key, encoding = store_copy(
            place, source.file, source.encoded, read_back=self._read_back or found is not None, found=found
        )
        seconds = time.monotonic() - begun
        copy = Copy(
            name=name.name,
            system_identifier=source.file.system_identifier,
            store=target,
            status=CopyStatus.VERIFIED,
            object_key=key,
            encoding=encoding,
            tries=1,
            verified_at=self._clock(),
            store_seconds=seconds,
        )
        return CopyVerified(source.file, copy, is_new=True, seconds={f"store on {target}": seconds})

    def _own_copy(self, name: WalFileName, target: str) -> StoredSource:
        """Return what the target itself holds: good already, where nothing else has the file to compare with."""
        for system_identifier in self._candidates(name):
            source = read_source(ClusterStore(self._stores[target], self._layout(system_identifier)), name)
            if source is not None:
                return source
        raise ObjectMissingError(
            target,
            f"'{name.name}' cannot be copied: neither the spool nor any store has it",
            hint="The file is lost for this archive: take a base backup, so that a new recovery window begins.",
        )

    def _source(self, name: WalFileName, target: str) -> StoredSource | None:
        """Return the file's bytes, from the spool if it is there, else from the first other store with a good copy.

        Raises: DamagedCopyError where other stores have copies and none can be read.
        """
        spooled = self._from_spool(name)
        if spooled is not None:
            return spooled
        troubles = []
        for system_identifier in self._candidates(name):
            for store in self._stores.values():
                if store.name == target:
                    continue
                try:
                    source = read_source(ClusterStore(store, self._layout(system_identifier)), name)
                except (StoreError, InvalidWalFileError) as error:
                    troubles.append(error.message)
                    self._note_damage(system_identifier, name, store.name, error)
                else:
                    if source is not None:
                        return source
        if troubles:
            raise DamagedCopyError(target, f"'{name.name}' has no copy that can be read: {'; '.join(troubles)}")
        return None

    def _note_damage(self, system_identifier: int, name: WalFileName, store: str, error: WalPipelineError) -> None:
        """Record a copy whose bytes were read and are wrong. A store that does not answer proves nothing."""
        if isinstance(error, DamagedCopyError | InvalidWalFileError):
            damaged = CopyStatus.DAMAGED
            self._catalog.files.set_status(system_identifier, [name.name], store, damaged, last_error=error.message)

    def _candidates(self, name: WalFileName) -> list[int]:
        """Return the system identifiers under which the file may be stored, the likeliest first."""
        recorded = [system_identifier for system_identifier, _ in self._catalog.files.files_of([name.name])]
        return list(dict.fromkeys([*recorded, *sorted(self._identity.accepted, reverse=True)]))

    def _from_spool(self, name: WalFileName) -> StoredSource | None:
        current = self._identity.current
        if self._spool is None or self._preparer is None or current is None:
            return None
        spooled = self._spool.find(name, self._clock())
        if spooled is None:
            return None
        try:
            prepared = self._preparer.prepare(spooled, self._identity.accepted, current, self._is_as_recorded)
        except (InvalidWalFileError, SpoolError):
            return None  # half a file, or another's: the archiving run says so, a store may have the whole one
        if prepared is None or prepared.encoded is None:
            return None
        return StoredSource(prepared.file, prepared.encoded, "spool")

    def _is_as_recorded(self, file: WalFile) -> bool:
        """Whether the spool's file is not known to differ from what the stores hold under its name."""
        recorded = self._catalog.files.files_of([file.name]).get((file.system_identifier, file.name))
        return recorded is None or recorded.sha256 == file.sha256

    def _record(self, event: CopyVerified | CopyFailed) -> None:
        if isinstance(event, CopyVerified):
            self._catalog.files.record_verified(event.file, [event.copy])
