"""Settings into what verifies the archive and repairs it."""

from typing import TYPE_CHECKING

from wal_pipeline.wiring.expire import retention_rule, surveyor, waiting_files
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:  # imported when it is asked for, as in wiring.py
    from wal_pipeline.commands.verify.verify import Verifier

_COPY_BYTES = 2 * 16 * 2**20  # a copy in memory: as stored and opened, of the usual segment size


def verifier(pipeline: Pipeline) -> "Verifier":
    """Return what verifies the archive and heals it. Raises: SettingsError, CatalogError."""
    from wal_pipeline.commands.verify.read_copy import CopyReader
    from wal_pipeline.commands.verify.repair import Repairer
    from wal_pipeline.commands.verify.verify import Verifier

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
