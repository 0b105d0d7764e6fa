"""Turns the settings into what brings files and base backups to a store that lacks them."""

from collections.abc import Callable

from wal_pipeline.commands.refill.base_backups import RefillOutcome, refill_store
from wal_pipeline.commands.refill.wal_files import Refiller
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wiring.archive_push import preparer
from wal_pipeline.wiring.backup import base_backup_taker
from wal_pipeline.wiring.pipeline import Pipeline


def refiller(pipeline: Pipeline) -> Refiller:
    """Return what copies files to stores that lack them."""
    spool = pipeline.spool if pipeline.settings.spool_folder is not None else None
    return Refiller(
        stores=pipeline.stores,
        catalog=pipeline.catalog,
        identity=pipeline.identity,
        layout=pipeline.layout,
        clock=pipeline.clock,
        read_back=pipeline.settings.read_back,
        concurrency=pipeline.settings.concurrency,
        spool=spool,
        preparer=None if spool is None else preparer(pipeline),
    )


def base_backup_refill(pipeline: Pipeline) -> Callable[[str, str], RefillOutcome]:
    """Return what brings a base backup (by its id) to a store that lacks it."""
    recorder = base_backup_taker(pipeline).recorder

    def refill(backup_id: str, destination: str) -> RefillOutcome:
        layout = pipeline.layout(_system_identifier_of(pipeline, backup_id))
        return refill_store(
            backup_id, destination, pipeline.stores, layout, recorder, read_back=pipeline.settings.read_back
        )

    return refill


def _system_identifier_of(pipeline: Pipeline, backup_id: str) -> int:
    """Return the cluster of a recorded base backup, else the current one. Raises: BaseBackupError."""
    recorded = [found for found in pipeline.catalog.base_backups.all() if found.backup_id == backup_id]
    pipeline.identity.refresh()
    known = recorded[0].system_identifier if recorded else pipeline.identity.current
    if known is None:
        raise BaseBackupError(
            f"which cluster base backup '{backup_id}' belongs to is not known",
            hint="'wal-pipeline catalog rebuild' makes the records again from the stores.",
        )
    return known
