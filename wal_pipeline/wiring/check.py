"""Turns the settings into what a check opens."""

from pathlib import Path

from wal_pipeline.commands.check.opened import NamedThings
from wal_pipeline.settings import variable_names
from wal_pipeline.wiring.pipeline import Pipeline


def named_things(pipeline: Pipeline) -> NamedThings:
    """Return all that the settings name, and that a later step would be the first to open."""
    settings, names = pipeline.settings, variable_names()
    folders: dict[str, Path | None] = {
        "state_folder": settings.state_folder,
        "quarantine_folder": settings.quarantine() if settings.spool_folder is not None else None,
        "base_backup_staging_folder": settings.base_backup_staging_folder,
        "drill_folder": settings.scratch_folder(),
    }
    return NamedThings(
        recipients=settings.age_recipients,
        identity_file=settings.age_identity_file,
        notification_urls=tuple(url.get_secret_value() for url in settings.notification_urls),
        sql_file=settings.drill_sql_file,
        bindir=settings.pgbindir,
        owner=settings.drill_owner,
        role=settings.drill_role,
        database=settings.drill_database,
        ca_bundle=settings.ca_bundle,
        folders={names[field][0]: folder for field, folder in folders.items() if folder is not None},
        connection_files=pipeline.server.connection_files,
    )
