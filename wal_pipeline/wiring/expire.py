"""Turns the settings into what expires the archive, and into what expiry and verification share."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from wal_pipeline.errors import SpoolError
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:  # imported when it is asked for, as in wiring.py
    from datetime import datetime

    from wal_pipeline.archive.retention.rules import RetentionRule
    from wal_pipeline.commands.expire.damage import FindDamage, Unsettled
    from wal_pipeline.commands.expire.expire import Expirer
    from wal_pipeline.commands.inventory.survey import ClusterSurvey, Surveyor


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


def retention_rule(pipeline: Pipeline) -> "RetentionRule":
    """Return the rule of the settings."""
    from wal_pipeline.archive.retention.rules import RetentionRule

    settings = pipeline.settings
    return RetentionRule(timedelta(days=settings.retention_days), settings.min_base_backups)


def surveyor(pipeline: Pipeline) -> "Surveyor":
    """Return what lists the stores and puts the catalog beside them."""
    from wal_pipeline.commands.inventory.survey import Surveyor

    settings = pipeline.settings
    return Surveyor(pipeline.stores, pipeline.catalog, settings.prefix, settings.cluster, pipeline.identities)


def find_damage(pipeline: Pipeline) -> "FindDamage":
    """Return what finds the damage that a verification has to settle before anything expires."""
    from wal_pipeline.commands.verify.unsettled import find_unsettled
    from wal_pipeline.commands.verify.verdict import read_verdict

    rule, in_spool = retention_rule(pipeline), waiting_files(pipeline)

    def find(survey: "ClusterSurvey", now: "datetime") -> "Unsettled":
        return find_unsettled(survey, rule, now, in_spool, read_verdict(pipeline.catalog))

    return find


def waiting_files(pipeline: Pipeline) -> Callable[[str], bool | None]:
    """Return what says whether a file waits in the spool; it says None where the spool is not on this machine."""
    from wal_pipeline.wal.names import require_file_name

    def waits(name: str) -> bool | None:
        if not pipeline.spool.folder.is_dir():
            return None
        try:
            return pipeline.spool.find(require_file_name(name), pipeline.clock()) is not None
        except SpoolError:
            return None

    return waits if pipeline.settings.spool_folder is not None else lambda _name: None
