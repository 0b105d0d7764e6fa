"""Names the folders and files that the settings let the program use."""

from pathlib import Path
from urllib.parse import urlsplit

from wal_pipeline.commands.setup.systemd import UsedPath
from wal_pipeline.settings import Settings


def used_paths(settings: Settings) -> list[UsedPath]:
    """Return every path that a setting names, or that follows from one, and that has to be reachable."""
    written = {
        "PG_WAL_ARCHIVE_DIR": settings.spool_folder,
        "WAL_PIPELINE_QUARANTINE_FOLDER": settings.quarantine() if settings.spool_folder else None,
        "WAL_PIPELINE_STATE_DIR": settings.state_folder,
        "WAL_PIPELINE_CATALOG_URL": _catalog_folder(settings),
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": settings.local_store_folder if "local" in settings.stores else None,
        "WAL_PIPELINE_BASE_BACKUP_STAGING_FOLDER": settings.base_backup_staging_folder,
        "WAL_PIPELINE_DRILL_FOLDER": None if settings.drill_folder is None else settings.drill_folder.parent,
    }
    read = {
        "WAL_PIPELINE_AGE_IDENTITY_FILE": settings.age_identity_file,
        "WAL_PIPELINE_CA_BUNDLE": settings.ca_bundle,
        "WAL_PIPELINE_DRILL_SQL_FILE": settings.drill_sql_file,
        "PGBINDIR": settings.pgbindir,
    }
    return [
        *(UsedPath(name, path.absolute()) for name, path in written.items() if path is not None),
        *(UsedPath(name, path.absolute(), writes=False) for name, path in read.items() if path is not None),
    ]


def _catalog_folder(settings: Settings) -> Path | None:
    """Return the folder of a SQLite catalog that has a place of its own."""
    url = "" if settings.catalog_url is None else settings.catalog_url.get_secret_value()
    parts = urlsplit(url)
    return Path(parts.path[1:]).parent if parts.scheme.startswith("sqlite") and parts.path[1:] else None
