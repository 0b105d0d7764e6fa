"""Makes a restore from the settings and a person's options."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from wal_pipeline.commands.archive_get.restore_command import prefetch_folder, prefetch_root_inside, program
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.commands.restore.options import RestoreOptions
from wal_pipeline.commands.restore.original import OriginalServer
from wal_pipeline.commands.restore.perform import RestoreCommand
from wal_pipeline.commands.restore.run import Restore
from wal_pipeline.commands.restore.standby.wal_only import identifier_of
from wal_pipeline.commands.restore_times import RestoreTimes
from wal_pipeline.settings import STORE_NAMES, settings_file
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.catalog.catalog import Catalog


def restore_of(
    pipeline: Pipeline, options: RestoreOptions, *, env_file: Path | None = None, by: str | None = None
) -> Restore:
    """Return the restore that the options describe. Only the chosen stores are opened, and asked for their clusters.

    ``env_file`` is the settings file that was named: the ``restore_command`` names it too. ``by``: who or what asked
    for the restore, as the audit log shall say.

    Raises: RestoreOptionError, RecoveryTargetError, InvalidLsnError, RestoreError, SettingsError, StoreError.
    """
    settings = pipeline.settings
    request = options.request(
        default_pgdata=settings.pgdata,
        bindir=settings.pgbindir,
        primary_conninfo=settings.primary_conninfo.get_secret_value(),
    )
    given = options.system_identifier or (identifier_of(request.pgdata) if request.wal_only else None)
    stores = tuple(pipeline.open_stores(options.store_names(settings.stores, STORE_NAMES)).values())
    layout = pipeline.layout(
        find_system_identifier(stores, settings.prefix, settings.cluster, given or settings.system_identifier)
    )
    prefetch_root = options.prefetch_dir or prefetch_root_inside(request.pgdata)
    words = program(
        layout.system_identifier,
        env_file=settings_file(env_file),
        prefetch_dir=prefetch_root,
        store=options.store,
        standby=request.standby is not None,
    )
    folder = prefetch_folder(request.pgdata, layout.system_identifier, prefetch_root)
    command = RestoreCommand(tuple(words), folder)
    server = pipeline.server
    original = OriginalServer(settings.pgdata, server.address, server.answers, lambda: server.facts().system_identifier)
    return Restore(
        options,
        request,
        stores,
        layout,
        pipeline.identities,
        command,
        pipeline.audit,
        original,
        by,
        times=restore_times(pipeline),
    )


def restore_times(pipeline: Pipeline) -> RestoreTimes:
    """Return what predicts how long a restore takes. A host that has no catalog gets none by it."""

    def open_existing() -> "Catalog":
        from wal_pipeline.wiring.catalog import open_configured_catalog, require_catalog

        require_catalog(pipeline.settings)
        return open_configured_catalog(pipeline.settings, pipeline.clock)

    return RestoreTimes(open_existing, socket.gethostname(), pipeline.clock)
