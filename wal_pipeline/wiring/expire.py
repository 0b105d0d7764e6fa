"""Settings into what keeps the archive for years: the expiry and the verification of one cluster."""

from datetime import timedelta
from typing import TYPE_CHECKING

from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:  # imported when it is asked for, as in wiring.py
    from wal_pipeline.archive.retention.rules import RetentionRule
    from wal_pipeline.commands.expire.expire import Expirer
    from wal_pipeline.commands.inventory.survey import Surveyor


def retention_rule(pipeline: Pipeline) -> "RetentionRule":
    """Return the rule of the settings."""
    from wal_pipeline.archive.retention.rules import RetentionRule

    settings = pipeline.settings
    return RetentionRule(timedelta(days=settings.retention_days), settings.min_base_backups)


def expirer(pipeline: Pipeline) -> "Expirer":
    """Return what plans and does the expiry. Raises: SettingsError, CatalogError."""
    from wal_pipeline.commands.expire.expire import Expirer

    return Expirer(
        pipeline.stores,
        pipeline.catalog,
        surveyor(pipeline),
        pipeline.audit,
        rule=retention_rule(pipeline),
        clock=pipeline.clock,
        concurrency=pipeline.settings.concurrency,
    )


def surveyor(pipeline: Pipeline) -> "Surveyor":
    """Return what lists the stores and puts the catalog beside them."""
    from wal_pipeline.commands.inventory.survey import Surveyor

    settings = pipeline.settings
    return Surveyor(pipeline.stores, pipeline.catalog, settings.prefix, settings.cluster, pipeline.identities)
