"""Lists all stores anew and puts the catalog beside them, for expire and verify to judge."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import BaseBackup, CopyStatus, KnownCopy, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.files import CopyFilter
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.inventory.histories import read_histories
from wal_pipeline.commands.inventory.listing import StoreListing, cuts_of, list_store
from wal_pipeline.commands.inventory.manifests import with_reports
from wal_pipeline.commands.inventory.system_identifiers import system_identifiers
from wal_pipeline.commands.inventory.wholeness import BackupFaultKind
from wal_pipeline.errors import StoreError, WalPipelineError
from wal_pipeline.host.gc_pause import many_objects
from wal_pipeline.stores.base import Store, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore

_ASKED_AT_ONCE: Final = 16
_UNSOUND: Final = (CopyStatus.DAMAGED, CopyStatus.MISSING)


@dataclass(frozen=True, slots=True)
class Records:
    """The catalog's records of one system identifier.

    ``files`` by name, ``copies`` by store and name, ``base_backups`` by id, ``backups``: their copies by store and id.
    """

    files: Mapping[str, WalFile]
    copies: Mapping[str, Mapping[str, KnownCopy]]
    base_backups: Mapping[str, BaseBackup]
    backups: Mapping[tuple[str, str], BaseBackupCopy]

    def copy(self, store: str, name: str) -> KnownCopy | None:
        """Return the record of a file's copy on a store."""
        return self.copies.get(store, {}).get(name)


@dataclass(frozen=True, slots=True)
class ClusterSurvey:
    """One system identifier on all stores that answered. ``contents`` counts only what is sound as far as is known.

    ``files`` are all that are recorded or that describe themselves, by name. ``notes`` say what could not be read.
    """

    layout: Layout
    listings: Mapping[str, StoreListing]
    records: Records
    files: Mapping[str, WalFile]
    contents: ArchiveContents
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """All system identifiers under a cluster's name. ``silent``: why a store is left out, by its name."""

    clusters: tuple[ClusterSurvey, ...]
    silent: Mapping[str, str]


@dataclass(slots=True)
class Surveyor:
    """Makes surveys. A store that does not answer is left out, and named."""

    stores: Mapping[str, Store]
    catalog: Catalog
    prefix: str
    cluster: str
    identities: Sequence[Any] = ()
    _silent: dict[str, str] = field(default_factory=dict)

    def survey(self) -> Survey:
        """List every store and read the catalog. Raises: CatalogError."""
        with many_objects():
            return self._survey()

    def _survey(self) -> Survey:
        self._silent = {}
        identifiers = {name: self._ask(store) for name, store in self.stores.items()}
        known = set[int]().union(*identifiers.values(), self.catalog.system_identifiers.known())
        layouts = [Layout(self.prefix, self.cluster, identifier) for identifier in sorted(known)]
        listed = [self._listings(layout) for layout in layouts]
        clusters = [
            self._cluster(layout, {name: one for name, one in listings.items() if name not in self._silent})
            for layout, listings in zip(layouts, listed, strict=True)
        ]
        return Survey(tuple(clusters), dict(self._silent))

    def _ask(self, store: Store) -> set[int]:
        try:
            return system_identifiers(store, self.prefix, self.cluster)
        except StoreError as error:
            self._silent[store.name] = error.message
            return set()

    def _listings(self, layout: Layout) -> dict[str, StoreListing]:
        asked = [store for store in self.stores.values() if store.name not in self._silent]
        cuts = cuts_of(layout, self.catalog.files.count_by_log(layout.system_identifier))
        found = {}
        with ThreadPoolExecutor(max(1, len(asked)), thread_name_prefix="survey") as pool:
            answers = [
                (store.name, pool.submit(list_store, ClusterStore(store, layout), cuts, with_hidden=True))
                for store in asked
            ]
        for name, answer in answers:
            try:
                found[name] = answer.result()
            except StoreError as error:
                self._silent[name] = error.message
        return found

    def _cluster(self, layout: Layout, listings: dict[str, StoreListing]) -> ClusterSurvey:
        records = read_records(self.catalog, layout.system_identifier)  # after the stores: none is newer than it
        files = {**self._unrecorded(layout, listings, records), **records.files}
        answered = tuple(self.stores[name] for name in listings)
        histories, notes = read_histories(listings.values(), WalSource(layout, answered, tuple(self.identities)))
        faults = [
            f"{one.store}: {fault.reason}"
            for one in listings.values()
            for fault in one.faults.values()
            if fault.kind is BackupFaultKind.UNREADABLE
        ]
        contents = ArchiveContents.of(
            layout.system_identifier,
            files=files.values(),
            copies={name: sound_names(one, records) for name, one in listings.items()},
            backups=_held(listings, records),
            histories=histories,
        )
        return ClusterSurvey(layout, listings, records, files, contents, (*faults, *notes))

    def _unrecorded(self, layout: Layout, listings: Mapping[str, StoreListing], records: Records) -> dict[str, WalFile]:
        """Read what the catalog does not know from the objects themselves: their age decides where nothing else does.

        What cannot be read has no record, and then stays where its age would decide.
        """
        wanted = {
            name: (one.store, objects[0].key)
            for one in listings.values()
            for name, objects in one.wal.items()
            if name not in records.files
        }
        with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="survey-head") as pool:
            found = pool.map(lambda place: self._described(*place), wanted.values())
            pairs = zip(wanted, found, strict=True)
            return {
                name: file
                for name, file in pairs
                if file is not None and (file.name, file.system_identifier) == (name, layout.system_identifier)
            }

    def _described(self, store: str, key: str) -> WalFile | None:
        try:
            found = self.stores[store].head(key)
            return None if found is None else from_metadata(key, found.metadata)[0]
        except WalPipelineError:
            return None


def read_records(catalog: Catalog, system_identifier: int) -> Records:
    """Read what the catalog knows of one system identifier. Raises: CatalogError."""
    files = catalog.files.files(CopyFilter(system_identifier=system_identifier))
    held = (copy for copy in catalog.base_backups.copies() if copy.system_identifier == system_identifier)
    return Records(
        {file.name: file for file in files},
        catalog.files.known_copies(system_identifier),
        {one.backup_id: one for one in catalog.base_backups.all() if one.system_identifier == system_identifier},
        {(copy.store, copy.backup_id): copy for copy in held},
    )


def sound_names(listing: StoreListing, records: Records) -> frozenset[str]:
    """Return the files of which a store has a copy that is not known to be damaged and has the recorded size."""
    recorded = records.copies.get(listing.store, {})
    return frozenset([name for name, objects in listing.wal.items() if _is_sound(objects, recorded.get(name))])


def _is_sound(objects: tuple[StoredObject, ...], recorded: KnownCopy | None) -> bool:
    if recorded is None:
        return True
    size_bytes = recorded.size_bytes
    return recorded.status not in _UNSOUND and (
        size_bytes is None or size_bytes in [item.size_bytes for item in objects]
    )


def _held(listings: Mapping[str, StoreListing], records: Records) -> list[HeldBackup]:
    manifests = with_reports(manifest for one in listings.values() for manifest in one.manifests.values())
    return [
        HeldBackup(
            manifest.record(),
            frozenset(name for name, one in listings.items() if _has_backup(one, key, records)),
        )
        for key, manifest in sorted(manifests.items())
    ]


def _has_backup(listing: StoreListing, backup_id: str, records: Records) -> bool:
    recorded = records.backups.get((listing.store, backup_id))
    return listing.is_whole(backup_id) and (recorded is None or recorded.status not in _UNSOUND)
