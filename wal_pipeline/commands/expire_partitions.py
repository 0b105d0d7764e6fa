"""Which files and base backups some store holds, or is about to hold, after an expiry: their partitions stay."""

from collections.abc import Callable
from dataclasses import dataclass

from wal_pipeline.archive.retention import ObjectKind
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.expire import Expiry
from wal_pipeline.commands.expire_plan import StorePlan


@dataclass(frozen=True, slots=True)
class HeldNames:
    """Names of files and ids of base backups that are not gone everywhere."""

    files: frozenset[str]
    base_backups: frozenset[str]


def held_names(done: Expiry, catalog: Catalog, waiting: Callable[[], frozenset[str]]) -> HeldNames:
    """Return what is held after an expiry in which every store answered.

    ``waiting`` lists the spool. It is asked before the catalog: a file that leaves the spool in between is recorded by
    then. Raises: CatalogError, SpoolError.
    """
    files, base_backups = set(waiting()), set[str]()
    for store in done.stores:
        files |= _kept(store.plan, ObjectKind.WAL_FILE)
        base_backups |= _kept(store.plan, ObjectKind.BASE_BACKUP)
    files.update(file.name for file in catalog.files.files())
    base_backups.update(backup.backup_id for backup in catalog.base_backups.all())
    return HeldNames(frozenset(files), frozenset(base_backups))


def _kept(plan: StorePlan, kind: ObjectKind) -> set[str]:
    if plan.plan is None:
        return set(plan.keys)
    return {one.name for one in plan.plan.keep if one.kind is kind}
