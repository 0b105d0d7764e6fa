"""Makes the catalog's tables, and refuses tables of another version."""

import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, select, text

from wal_pipeline.catalog import schema
from wal_pipeline.catalog.engine import Database, open_database
from wal_pipeline.errors import CatalogError

# An arbitrary number: processes that make the tables at the same moment wait for each other.
_ADVISORY_LOCK: Final = 7_718_273_440


def ensure_schema(database: Database) -> None:
    """Make the tables where there are none; cheap where they exist.

    Raises: CatalogError where they are of another version.
    """
    with database.read() as connection:
        version = _version(connection)
    if version is None:
        version = _create(database)
    if version != schema.SCHEMA_VERSION:
        raise CatalogError(
            f"catalog '{database.shown_url}' has schema version {version}, expected {schema.SCHEMA_VERSION}",
            hint="Run 'wal-pipeline catalog rebuild': it sets the old tables aside and reads the stores.",
        )


def _version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(schema.schema_version.name):
        return None
    return connection.execute(select(schema.schema_version.c.version)).scalar()


def _create(database: Database) -> int:
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        version = _version(connection)
        if version is None:
            schema.metadata.create_all(connection)
            connection.execute(schema.schema_version.insert().values(version=schema.SCHEMA_VERSION))
            version = schema.SCHEMA_VERSION
    return version


def set_aside(url: str, at: datetime) -> str | None:
    """Set the tables aside where they are of another version or cannot be read.

    An SQLite file is renamed; on PostgreSQL our tables (those of every cluster in this database) move into a schema
    named after the moment. Returns their new place, or None where the catalog is usable and stays.

    Raises: CatalogError where the database does not answer.
    """
    database = open_database(url)
    try:
        return _set_sqlite_aside(database, at) if database.is_sqlite else _set_postgres_aside(database, at)
    finally:
        database.close()


def _set_sqlite_aside(database: Database, at: datetime) -> str | None:
    try:
        ensure_schema(database)
    except CatalogError as error:
        if not _is_beyond_use(error):
            raise
        database.close()
    else:
        return None
    file = Path(str(database.url.database))
    aside = file.with_name(f"{file.name}.{at:%Y%m%dT%H%M%SZ}.old")
    # The journal moves with its file: a new file must never meet the old one's journal.
    for suffix in ("-wal", "-shm", ""):
        source = file.with_name(file.name + suffix)
        if source.exists():
            source.rename(aside.with_name(aside.name + suffix))
    return str(aside)


def _is_beyond_use(error: CatalogError) -> bool:
    """Say whether a file is damaged or of another version, not only busy or unreadable for this user."""
    cause = getattr(error.__cause__, "orig", None)
    damaged = isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, sqlite3.OperationalError)
    return error.__cause__ is None or damaged


def _set_postgres_aside(database: Database, at: datetime) -> str | None:
    with database.write() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        if _version(connection) in (None, schema.SCHEMA_VERSION):
            return None
        folder = f"wal_pipeline_old_{at:%Y%m%dt%H%M%Sz}"
        connection.execute(text(f"CREATE SCHEMA {folder}"))
        ours = [name for name in inspect(connection).get_table_names() if name in schema.metadata.tables]
        for name in ours:
            connection.execute(text(f"ALTER TABLE {name} SET SCHEMA {folder}"))
    return f"schema {folder}"
