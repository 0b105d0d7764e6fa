"""Settings into what keeps the archive for years: the expiry and the verification of one cluster."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from wal_pipeline.errors import SpoolError
from wal_pipeline.wiring import Pipeline

if TYPE_CHECKING:  # imported when it is asked for, as in wiring.py
    from wal_pipeline.archive.retention_rules import RetentionRule
    from wal_pipeline.commands.expire import Expirer
    from wal_pipeline.commands.expire_survey import Surveyor
    from wal_pipeline.commands.verify import Verifier

_COPY_BYTES = 2 * 16 * 2**20  # a copy in memory: as stored and opened, of the usual segment size


def retention_rule(pipeline: Pipeline) -> "RetentionRule":
    """Return the rule of the settings."""
    from wal_pipeline.archive.retention_rules import RetentionRule

    settings = pipeline.settings
    return RetentionRule(timedelta(days=settings.retention_days), settings.min_base_backups)


def expirer(pipeline: Pipeline) -> "Expirer":
    """Return what plans and does the expiry. Raises: SettingsError, CatalogError."""
    from wal_pipeline.commands.expire import Expirer

    return Expirer(
        pipeline.stores,
        pipeline.catalog,
        surveyor(pipeline),
        pipeline.audit,
        rule=retention_rule(pipeline),
        clock=pipeline.clock,
        concurrency=pipeline.settings.concurrency,
    )


def verifier(pipeline: Pipeline) -> "Verifier":
    """Return what verifies the archive and heals it. Raises: SettingsError, CatalogError."""
    from wal_pipeline.commands.verify import Verifier
    from wal_pipeline.commands.verify_copy import CopyReader
    from wal_pipeline.commands.verify_repair import Repairer

    settings, reader = pipeline.settings, CopyReader(pipeline.identities)

    def repairer() -> Repairer:
        folder = settings.state_folder / "set-aside"
        return Repairer(
            pipeline.stores, pipeline.catalog, reader, pipeline.audit, clock=pipeline.clock, kept_folder=folder
        )

    return Verifier(
        pipeline.stores,
        pipeline.catalog,
        surveyor(pipeline),
        reader,
        repairer,
        rule=retention_rule(pipeline),
        clock=pipeline.clock,
        concurrency=max(1, min(settings.concurrency, settings.memory_bytes // _COPY_BYTES)),
        in_spool=waiting_files(pipeline),
    )


def surveyor(pipeline: Pipeline) -> "Surveyor":
    """Return what lists the stores and puts the catalog beside them."""
    from wal_pipeline.commands.expire_survey import Surveyor

    settings = pipeline.settings
    return Surveyor(pipeline.stores, pipeline.catalog, settings.prefix, settings.cluster, pipeline.identities)


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
