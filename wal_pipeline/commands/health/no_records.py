"""Says that this host has no records of a cluster, so that nobody takes that for an empty archive."""

from collections.abc import Sequence

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.health.facts import HealthFacts
from wal_pipeline.errors import CatalogError


def has_records(facts: HealthFacts) -> bool:
    """Return whether the facts come from records of any file or base backup. Else they say nothing of the archive."""
    return bool(facts.files or facts.windows.backups)


def no_records(cluster: str, missing: Sequence[str]) -> CatalogError:
    """Return the error for a cluster without records. ``missing``: the variables without which a store is not asked."""
    unset = f" Set these first, without which a store cannot be asked: {', '.join(missing)}." if missing else ""
    return CatalogError(
        f"this host has no records of cluster '{cluster}', and this command asks no store: nothing is known of its "
        "archive",
        hint=f"'wal-pipeline catalog rebuild' asks the stores and makes the records.{unset}",
    )


def require_records(catalog: Catalog, cluster: str, missing: Sequence[str]) -> None:
    """Refuse to tell of an archive of which nothing is recorded. Raises: CatalogError."""
    if not catalog.files.totals() and not catalog.base_backups.all():
        raise no_records(cluster, missing)
