"""Settings into what expires the archive of one cluster."""

from typing import TYPE_CHECKING

from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.survey import find_damage, retention_rule, surveyor

if TYPE_CHECKING:  # imported when it is asked for, as in wiring.py
    from wal_pipeline.commands.expire.expire import Expirer


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
        find_damage=find_damage(pipeline),
    )
