"""Defines the catalog's tables.

Every row belongs to one cluster's name, so that many clusters can share a catalog.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

from wal_pipeline.catalog.types import Json, LsnText, RowNumber, SystemIdentifierText, UtcDateTime, code

# Raised whenever a table changes. A database with another number is refused: the catalog is rebuilt from the stores.
SCHEMA_VERSION: Final = 1
metadata: Final = MetaData()

# The tables' names begin with wal_ because a deployment may keep them in the database that holds Dagster's tables.
schema_version: Final = Table("wal_schema_version", metadata, Column("version", Integer, primary_key=True))


def _cluster() -> "Column[str]":
    return Column("cluster", code(200), primary_key=True)


def _system_identifier(*, key: bool = True) -> "Column[int]":
    return Column("system_identifier", SystemIdentifierText(), primary_key=key, nullable=False)


def _store() -> "Column[str]":
    return Column("store", code(63), primary_key=True)


def _moment(name: str, *, required: bool = False) -> "Column[Any]":
    return Column(name, UtcDateTime(), nullable=not required)


system_identifiers: Final = Table(
    "wal_system_identifiers",
    metadata,
    _cluster(),
    _system_identifier(),
    _moment("first_seen_at", required=True),
    Column("how", Text, nullable=False),
)

files: Final = Table(
    "wal_files",
    metadata,
    _cluster(),
    _system_identifier(),
    Column("name", code(64), primary_key=True),
    Column("kind", code(16), nullable=False),
    Column("timeline", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", code(64), nullable=False),
    _moment("spooled_at", required=True),
    Column("wal_segment_size", BigInteger),
    Column("server_major", Integer),
    Column("start_lsn", LsnText()),
    Column("end_lsn", LsnText()),
    Column("commit_times", code(16), nullable=False),
    _moment("first_commit_at"),
    _moment("last_commit_at"),
    _moment("released_at"),
    _moment("updated_at", required=True),
)
Index("wal_files_by_name", files.c.cluster, files.c.name)
Index("wal_files_by_spooled_at", files.c.cluster, files.c.spooled_at)

copies: Final = Table(
    "wal_copies",
    metadata,
    _cluster(),
    _system_identifier(),
    Column("name", code(64), primary_key=True),
    _store(),
    Column("status", code(16), nullable=False),
    Column("object_key", Text, nullable=False),
    Column("codec", code(16)),
    Column("encrypted", Boolean),
    Column("stored_size_bytes", BigInteger),
    Column("stored_sha256", code(64)),
    Column("stored_md5", code(32)),
    Column("compress_seconds", Float),
    Column("tries", Integer, nullable=False),
    Column("last_error", Text),
    _moment("verified_at"),
    Column("store_seconds", Float),
    Column("lag_seconds", Float),
    _moment("last_tried_at"),
    _moment("last_deep_verified_at"),
    _moment("updated_at", required=True),
    ForeignKeyConstraint(
        ("cluster", "system_identifier", "name"), (files.c.cluster, files.c.system_identifier, files.c.name)
    ),
)
Index("wal_copies_by_name", copies.c.cluster, copies.c.name)
# Covers the totals per store and status, which every status screen reads.
Index("wal_copies_by_status", copies.c.cluster, copies.c.store, copies.c.status, copies.c.stored_size_bytes)

base_backups: Final = Table(
    "wal_base_backups",
    metadata,
    _cluster(),
    _system_identifier(),
    Column("backup_id", code(200), primary_key=True),
    Column("kind", code(16), nullable=False),
    Column("parent_id", code(200)),
    Column("timeline", BigInteger, nullable=False),
    Column("start_lsn", LsnText(), nullable=False),
    Column("stop_lsn", LsnText(), nullable=False),
    _moment("started_at", required=True),
    _moment("finished_at", required=True),
    Column("wal_segment_size", BigInteger, nullable=False),
    Column("server_version", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("stored_size_bytes", BigInteger, nullable=False),
    _moment("updated_at", required=True),
)

base_backup_copies: Final = Table(
    "wal_base_backup_copies",
    metadata,
    _cluster(),
    _system_identifier(),
    Column("backup_id", code(200), primary_key=True),
    _store(),
    Column("status", code(16), nullable=False),
    Column("objects", Integer, nullable=False),
    Column("stored_size_bytes", BigInteger, nullable=False),
    _moment("restorable_at"),
    Column("last_error", Text),
    _moment("verified_at"),
    _moment("last_deep_verified_at"),
    _moment("updated_at", required=True),
    ForeignKeyConstraint(
        ("cluster", "system_identifier", "backup_id"),
        (base_backups.c.cluster, base_backups.c.system_identifier, base_backups.c.backup_id),
    ),
)

store_states: Final = Table(
    "wal_store_states",
    metadata,
    _cluster(),
    _store(),
    Column("consecutive_failures", Integer, nullable=False),
    Column("last_error", Text),
    _moment("last_failure_at"),
    _moment("last_success_at"),
    _moment("retry_at"),
)

archive_events: Final = Table(
    "wal_archive_events",
    metadata,
    _cluster(),
    _store(),
    Column("hour_at", UtcDateTime(), primary_key=True),
    Column("attempted", BigInteger, nullable=False),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
)

requests: Final = Table(
    "wal_requests",
    metadata,
    _cluster(),
    _store(),
    Column("day_at", UtcDateTime(), primary_key=True),
    Column("class_a", BigInteger, nullable=False),
    Column("class_b", BigInteger, nullable=False),
    Column("uploaded_bytes", BigInteger, nullable=False),
    Column("downloaded_bytes", BigInteger, nullable=False),
)

alerts: Final = Table(
    "wal_alerts",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("cluster", code(200), nullable=False),
    Column("kind", code(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("severity", code(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("details", Json, nullable=False),
    _moment("opened_at", required=True),
    _moment("last_seen_at", required=True),
    Column("times_seen", Integer, nullable=False),
    _moment("resolved_at"),
    _moment("acknowledged_at"),
    Column("acknowledged_by", Text),
    Column("acknowledged_reason", Text),
    _moment("opened_sent_at"),
    _moment("resolved_sent_at"),
    sqlite_autoincrement=True,
)
# The database itself allows one open alert per kind and subject, whichever process sees it first.
open_alerts: Final = Index(
    "wal_alerts_open",
    alerts.c.cluster,
    alerts.c.kind,
    alerts.c.subject,
    unique=True,
    sqlite_where=text("resolved_at IS NULL"),
    postgresql_where=text("resolved_at IS NULL"),
)
Index("wal_alerts_by_opened_at", alerts.c.cluster, alerts.c.opened_at)

gap_acknowledgements: Final = Table(
    "wal_gap_acknowledgements",
    metadata,
    _cluster(),
    _system_identifier(),
    Column("timeline", BigInteger, primary_key=True),
    Column("first_missing", code(64), primary_key=True),
    Column("last_missing", code(64), primary_key=True),
    Column("acknowledged_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _moment("acknowledged_at", required=True),
)

drills: Final = Table(
    "wal_drills",
    metadata,
    _cluster(),
    Column("drill_id", code(64), primary_key=True),
    _store(),
    Column("target", Text, nullable=False),
    _moment("started_at", required=True),
    _moment("finished_at"),
    Column("ok", Boolean),
    Column("seconds", Json, nullable=False),
    Column("detail", Json, nullable=False),
)

stored_values: Final = Table(
    "wal_values",
    metadata,
    _cluster(),
    Column("key", code(200), primary_key=True),
    Column("value", Json, nullable=False),
    _moment("updated_at", required=True),
)
