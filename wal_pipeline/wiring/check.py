"""Turns the settings into what a check opens, how archiving shall be, and which paths the program uses."""

from pathlib import Path
from urllib.parse import urlsplit

from wal_pipeline.commands.check.opened import NamedThings
from wal_pipeline.commands.clone.folder import clone_of
from wal_pipeline.commands.setup.findings import Level
from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.commands.setup.setup import MoreFindings
from wal_pipeline.commands.setup.systemd import UsedPath
from wal_pipeline.errors import SettingsError
from wal_pipeline.settings import Settings, variable_names
from wal_pipeline.wiring.archive_push import archived_segment_bytes
from wal_pipeline.wiring.backup import also_for_base_backups
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.settings_check import describe_crons
from wal_pipeline.wiring.ship_source import also_for_shipping


def named_things(pipeline: Pipeline) -> NamedThings:
    """Return all that the settings name, and that a later step would be the first to open."""
    settings, names = pipeline.settings, variable_names()
    folders: dict[str, Path | None] = {
        "state_folder": settings.state_folder,
        "quarantine_folder": settings.quarantine() if settings.spool_folder is not None else None,
        "base_backup_staging_folder": settings.base_backup_staging_folder,
        "drill_folder": settings.scratch_folder(),
        "clone_folder": settings.folder_of_clones(settings.state_folder),
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
        schedules=describe_crons(settings),
    )


def wanted_archiving(pipeline: Pipeline, *, replace_foreign: bool = False) -> WantedArchiving:
    """Return how the server shall archive. Raises: SettingsError where the spool is not set.

    Where the codec or a recipient cannot be used, archiving itself fails with the reason; here only the memory stays
    unjudged.
    """
    settings = pipeline.settings
    try:
        encoder = pipeline.encoder
    except SettingsError:
        encoder = None
    return WantedArchiving(
        settings.require_spool_folder(),
        settings.archive_timeout_seconds,
        replace_foreign,
        settings.system_identifier,
        encoder=encoder,
        bindir=settings.pgbindir,
        unreadable_wal=settings.unreadable_wal == "archive",
        quarantine=settings.quarantine(),
        archived_segment_bytes=archived_segment_bytes(pipeline),
        pgdata=settings.pgdata,
        clone_of=clone_of,
    )


def also_for(pipeline: Pipeline, *, with_stores: bool, shipping_fault: Level) -> MoreFindings:
    """Return what setup and check look at besides archiving: what base backups and shipping need."""
    looks = (
        also_for_base_backups(pipeline, with_stores=with_stores),
        also_for_shipping(pipeline, failing=shipping_fault),
    )
    return lambda facts: tuple(finding for look in looks for finding in look(facts))


def used_paths(pipeline: Pipeline) -> list[UsedPath]:
    """Return every path that a setting names, or that follows from one, and that has to be reachable."""
    settings = pipeline.settings
    written = {
        "PG_WAL_ARCHIVE_DIR": settings.spool_folder,
        "WAL_PIPELINE_QUARANTINE_FOLDER": settings.quarantine() if settings.spool_folder else None,
        "WAL_PIPELINE_STATE_DIR": settings.state_folder,
        "WAL_PIPELINE_CATALOG_URL": _catalog_folder(settings),
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": settings.local_store_folder if "local" in settings.stores else None,
        "WAL_PIPELINE_BASE_BACKUP_STAGING_FOLDER": settings.base_backup_staging_folder,
        "WAL_PIPELINE_CLONE_FOLDER": settings.clone_folder,
        "WAL_PIPELINE_DRILL_FOLDER": None if settings.drill_folder is None else settings.drill_folder.parent,
    }
    read = {
        "WAL_PIPELINE_AGE_IDENTITY_FILE": settings.age_identity_file,
        "WAL_PIPELINE_CA_BUNDLE": settings.ca_bundle,
        "WAL_PIPELINE_DRILL_SQL_FILE": settings.drill_sql_file,
        "PGBINDIR": settings.pgbindir,
        **pipeline.server.connection_files,
    }
    return [
        *(UsedPath(name, path.absolute()) for name, path in written.items() if path is not None),
        *(UsedPath(name, path.absolute(), writes=False) for name, path in read.items() if path is not None),
    ]


def _catalog_folder(settings: Settings) -> Path | None:
    """Return the folder of an SQLite catalog that has a place of its own."""
    url = "" if settings.catalog_url is None else settings.catalog_url.get_secret_value()
    parts = urlsplit(url)
    return Path(parts.path[1:]).parent if parts.scheme.startswith("sqlite") and parts.path[1:] else None
