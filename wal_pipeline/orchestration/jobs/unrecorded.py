"""Finds the copies that the catalog knows and Dagster does not show, as after a run of the command line."""

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
    """The files and base backups that Dagster does not show: names and ids, by store."""

    files: Names
    base_backups: Names

    @property
    def count(self) -> int:
        """The number of copies."""
        return sum(len(names) for found in (self.files, self.base_backups) for names in found.values())

    def still(self, later: "Unrecorded") -> "Unrecorded":
        """Return what a later look still finds: a run records its copies a moment after it stores them."""
        return Unrecorded(_both(self.files, later.files), _both(self.base_backups, later.base_backups))


def catalog_totals(catalog: Catalog, stores: Sequence[str], now: datetime) -> list[list[Any]]:
    """Return counts and bytes that change with the catalog's copies, as a cheap comparison. Raises: CatalogError."""
    files: list[list[Any]] = [
        [total.store, total.files, total.stored_bytes]
        for total in catalog.files.totals()
        if total.status is CopyStatus.VERIFIED and total.store in stores
    ]
    return [*files, *([store, sorted(ids)] for store, ids in sorted(_base_backups(catalog, stores, now).items()))]


def find_unrecorded(
    instance: dg.DagsterInstance, keys: Keys, catalog: Catalog, stores: Sequence[str], now: datetime
) -> Unrecorded:
    """Compare the catalog with Dagster, in a few queries for any number of files. Raises: CatalogError."""
    files, base_backups = _files(catalog, stores), _base_backups(catalog, stores, now)  # before Dagster is read
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
    """Return the settled base backups. A base backup that still waits for its WAL is recorded by its own run."""
    young = {one.backup_id for one in catalog.base_backups.all() if abs(now - one.finished_at) < _SETTLES_WITHIN}
    held: dict[str, set[str]] = {store: set() for store in stores}
    for copy in catalog.base_backups.copies():
        settled = copy.restorable_at is not None or copy.backup_id not in young
        if copy.status is CopyStatus.VERIFIED and settled and copy.store in held:
            held[copy.store].add(copy.backup_id)
    return held


def _both(one: Names, other: Names) -> dict[str, frozenset[str]]:
    return {store: names & other.get(store, frozenset()) for store, names in one.items()}
