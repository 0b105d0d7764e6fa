"""Finds where Dagster and the catalog differ: copies that Dagster does not show, and copies it shows that are not good.

The command line archives, verifies and repairs without Dagster. Only the catalog knows what became of the copies then.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.runs.partition_statuses import ShownPartitions, shown_partitions

_BAD = (CopyStatus.MISSING, CopyStatus.DAMAGED, CopyStatus.FAILED, CopyStatus.PENDING)
_SETTLES_WITHIN = timedelta(hours=1)
Names = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Unrecorded:
    """Names and ids, by store, that Dagster does not show as the catalog has them.

    ``files`` and ``base_backups`` are good copies without a record in Dagster, or with a failed one. ``bad_files`` and
    ``bad_base_backups`` are copies that Dagster shows as good, and that are missing or damaged by the catalog.
    """

    files: Names
    base_backups: Names
    bad_files: Names
    bad_base_backups: Names

    @property
    def count(self) -> int:
        """The number of good copies that Dagster does not show."""
        return _count(self.files) + _count(self.base_backups)

    @property
    def bad_count(self) -> int:
        """The number of copies that Dagster shows as good and that are not."""
        return _count(self.bad_files) + _count(self.bad_base_backups)

    def still(self, later: "Unrecorded") -> "Unrecorded":
        """Return what a later look still finds: a run records its copies a moment after it stores them."""
        return Unrecorded(
            _both(self.files, later.files),
            _both(self.base_backups, later.base_backups),
            _both(self.bad_files, later.bad_files),
            _both(self.bad_base_backups, later.bad_base_backups),
        )


def catalog_totals(catalog: Catalog, stores: Sequence[str], now: datetime) -> list[list[Any]]:
    """Return counts and bytes that change with the catalog's copies, as a cheap comparison. Raises: CatalogError."""
    from wal_pipeline.commands.verify.last_results import read_results

    files: list[list[Any]] = [
        [total.store, total.status.value, total.files, total.stored_bytes]
        for total in catalog.files.totals()
        if total.store in stores
    ]
    base_backups = [[store, sorted(ids)] for store, ids in sorted(_base_backups(catalog, stores, now).items())]
    verified = [[result.begun_at.isoformat(), result.is_deep] for result in read_results(catalog)]
    return [*files, *base_backups, *verified]


def find_unrecorded(
    instance: dg.DagsterInstance, keys: Keys, catalog: Catalog, stores: Sequence[str], now: datetime
) -> Unrecorded:
    """Compare the catalog with Dagster, in a few queries for any number of files. Raises: CatalogError."""
    files, base_backups = _files(catalog, stores), _base_backups(catalog, stores, now)  # before Dagster is read
    bad_files, bad_base_backups = _bad_files(catalog, stores, files), _bad_base_backups(catalog, stores)
    wal = {store: shown_partitions(instance, keys.wal_segment(store), keys.wal_partitions) for store in stores}
    base = {store: shown_partitions(instance, keys.base_backup(store), keys.base_backup_partitions) for store in stores}
    return Unrecorded(
        _not_shown(files, wal), _not_shown(base_backups, base), _shown(bad_files, wal), _shown(bad_base_backups, base)
    )


def _not_shown(held: Mapping[str, Set[str]], shown: Mapping[str, ShownPartitions]) -> dict[str, frozenset[str]]:
    return {store: frozenset(names - shown[store].good) for store, names in held.items()}


def _shown(bad: Mapping[str, Set[str]], shown: Mapping[str, ShownPartitions]) -> dict[str, frozenset[str]]:
    return {store: frozenset(names & shown[store].good) for store, names in bad.items()}


def _files(catalog: Catalog, stores: Sequence[str]) -> dict[str, set[str]]:
    held: dict[str, set[str]] = {store: set() for store in stores}
    for system_identifier in catalog.system_identifiers.known():
        for store, names in catalog.measures.names_by_store(system_identifier).items():
            held.get(store, set()).update(names)
    return held


def _bad_files(catalog: Catalog, stores: Sequence[str], good: Mapping[str, Set[str]]) -> dict[str, set[str]]:
    """Return the files of which a store has a record and no good copy, not even of another cluster of that name."""
    return {
        store: {name for status in _BAD for _, name in catalog.files.names_on(store, status)} - good[store]
        for store in stores
    }


def _base_backups(catalog: Catalog, stores: Sequence[str], now: datetime) -> dict[str, set[str]]:
    """Return the settled base backups. A base backup that still waits for its WAL is recorded by its own run."""
    young = {one.backup_id for one in catalog.base_backups.all() if abs(now - one.finished_at) < _SETTLES_WITHIN}
    held: dict[str, set[str]] = {store: set() for store in stores}
    for copy in catalog.base_backups.copies():
        settled = copy.restorable_at is not None or copy.backup_id not in young
        if copy.status is CopyStatus.VERIFIED and settled and copy.store in held:
            held[copy.store].add(copy.backup_id)
    return held


def _bad_base_backups(catalog: Catalog, stores: Sequence[str]) -> dict[str, set[str]]:
    bad: dict[str, set[str]] = {store: set() for store in stores}
    for copy in catalog.base_backups.copies():
        if copy.status in _BAD and copy.store in bad:
            bad[copy.store].add(copy.backup_id)
    return bad


def _both(one: Names, other: Names) -> dict[str, frozenset[str]]:
    return {store: names & other.get(store, frozenset()) for store, names in one.items()}


def _count(names: Names) -> int:
    return sum(len(of_store) for of_store in names.values())
