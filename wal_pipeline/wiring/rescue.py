"""Makes a rescue from the settings and a person's options."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from wal_pipeline.commands.audit import running_user
from wal_pipeline.commands.rescue.living import LivingDatabase
from wal_pipeline.commands.rescue.options import RescueOptions
from wal_pipeline.commands.rescue.run import Rescue
from wal_pipeline.commands.rescue.wanted import RescueOptionError
from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.host.mounts import removable
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.settings import STORE_NAMES, Settings
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.relations import relation_lists

_PLACE = ("host", "hostaddr", "port", "service")
_SECRET = ("password", "sslpassword")


def rescue_of(pipeline: Pipeline, options: RescueOptions, *, by: str | None = None) -> Rescue:
    """Return the rescue that the options describe. Only the chosen stores are opened, and asked for their clusters.

    ``by``: who or what asked for it, as the audit log shall say.

    Raises: RescueOptionError, RestoreOptionError, RecoveryTargetError, InvalidLsnError, RestoreError, SettingsError,
    StoreError.
    """
    settings = pipeline.settings
    options.require_destination()
    wanted, target, schema = options.wanted(), options.target(), options.schema(pipeline.clock())
    living = None if schema is None else LivingDatabase(living_server(settings, options.into or ""), schema)
    opened = pipeline.open_stores(options.store_names(settings.stores, STORE_NAMES))
    stores = tuple(opened.values())
    identifier = find_system_identifier(
        stores, settings.prefix, settings.cluster, options.system_identifier or settings.system_identifier
    )
    layout = pipeline.layout(identifier)
    return Rescue(
        options,
        wanted,
        target,
        stores,
        layout,
        pipeline.identities,
        _folder(settings, options.folder),
        (settings.drill_role, "postgres", running_user()) if options.role is None else (options.role,),
        settings.pgbindir,
        living,
        pipeline.audit,
        partial(relation_lists, pipeline, layout, opened, since=target.at or target.not_before_at),
        by,
    )


def _folder(settings: Settings, given: Path | None) -> Path:
    """Return the scratch folder, by default beside that of the drills."""
    name = f"wal-pipeline-rescue-{settings.cluster}"
    if given is not None:
        return removable(given.absolute(), name)
    drills = settings.scratch_folder()
    return drills / name if os.path.ismount(drills) else drills.with_name(name)


def living_server(settings: Settings, into: str) -> PostgresServer:
    """Return the server to load into.

    Without a place of its own, ``into`` is about the server of the settings. With one it gets nothing of theirs: a
    password is for the server that it was set for.

    Raises: RescueOptionError for a password: a command line, and a run's configuration, can be read by others.
    SettingsError for a string that cannot be read.
    """
    folder = settings.conninfo_folder
    elsewhere = PostgresServer(into, folder=folder)
    given: dict[str, Any] = dict(conninfo_to_dict(into))
    if any(given.get(name) for name in _SECRET):
        raise RescueOptionError(
            "--into holds a password, which the list of processes, or a run's configuration, shows.",
            hint="Change it. Put it into PGPASSWORD, ~/.pgpass or a file that PGPASSFILE names, and leave it out of "
            "--into.",
        )
    if any(given.get(name) for name in _PLACE):
        return elsewhere
    merged = make_conninfo(settings.conninfo.get_secret_value(), **given)
    return PostgresServer(merged, variables=settings.server_variables, folder=folder)
