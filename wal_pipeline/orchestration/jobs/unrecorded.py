"""Which copies the catalog knows of and Dagster does not show: archived by the command line, or found on a store."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.orchestration.keys import Keys

_SETTLES_WITHIN = timedelta(hours=1)
Names = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Unrecorded:
    """Names of files, and ids of base backups, by the store whose copy Dagster does not show."""

    files: Names
    base_backups: Names

    @property
    def count(self) -> int:
        """How many copies there are."""
        return sum(len(names) for found in (self.files, self.base_backups) for names in found.values())

    def still(self, later: "Unrecorded") -> "Unrecorded":
        """Return what is unrecorded here and in a later look: a run records what it stores a moment later."""
        return Unrecorded(_both(self.files, later.files), _both(self.base_backups, later.base_backups))


def catalog_totals(catalog: Catalog, stores: Sequence[str], now: datetime) -> list[list[Any]]:
    """Return what tells cheaply that the catalog's copies are as they were: counts and bytes. Raises: CatalogError."""
    files: list[list[Any]] = [
        [total.store, total.files, total.stored_bytes]
        for total in catalog.files.totals()
        if total.status is CopyStatus.VERIFIED and total.store in stores
    ]
    return [*files, *([store, sorted(ids)] for store, ids in sorted(_base_backups(catalog, stores, now).items()))]


def find_unrecorded(
    instance: dg.DagsterInstance, keys: Keys, catalog: Catalog, stores: Sequence[str], now: datetime
) -> Unrecorded:
    """Compare the catalog with Dagster, in a few queries however many files there are. Raises: CatalogError."""
    files, base_backups = _files(catalog, stores), _base_backups(catalog, stores, now)  # before: what comes now is ours
    wal_keys = {store: keys.wal_segment(store) for store in stores}
    base_keys = {store: keys.base_backup(store) for store in stores}
    return Unrecorded(
        _missing(instance, files, wal_keys, keys.wal_partitions_name),
        _missing(instance, base_backups, base_keys, keys.base_backup_partitions_name),
    )


def _missing(
    instance: dg.DagsterInstance,
    held: Mapping[str, Set[str]],
    asset_keys: Mapping[str, dg.AssetKey],
    partitions_name: str,
) -> dict[str, frozenset[str]]:
    if not any(held.values()):
        return {store: frozenset() for store in held}
    partitions = set(instance.get_dynamic_partitions(partitions_name))
    return {
        store: frozenset(names - (partitions & instance.get_materialized_partitions(asset_keys[store])))
        for store, names in held.items()
    }


def _files(catalog: Catalog, stores: Sequence[str]) -> dict[str, set[str]]:
    held: dict[str, set[str]] = {store: set() for store in stores}
    for system_identifier in catalog.system_identifiers.known():
        for store, names in catalog.measures.names_by_store(system_identifier).items():
            held.get(store, set()).update(names)
    return held


def _base_backups(catalog: Catalog, stores: Sequence[str], now: datetime) -> dict[str, set[str]]:
    """Return the base backups that are not being made: one that waits for its WAL is recorded by its own run."""
    young = {one.backup_id for one in catalog.base_backups.all() if abs(now - one.finished_at) < _SETTLES_WITHIN}
    held: dict[str, set[str]] = {store: set() for store in stores}
    for copy in catalog.base_backups.copies():
        settled = copy.restorable_at is not None or copy.backup_id not in young
        if copy.status is CopyStatus.VERIFIED and settled and copy.store in held:
            held[copy.store].add(copy.backup_id)
    return held


def _both(one: Names, other: Names) -> dict[str, frozenset[str]]:
    return {store: names & other.get(store, frozenset()) for store, names in one.items()}
