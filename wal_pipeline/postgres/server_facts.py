"""Reads the PostgreSQL server's state, settings and role into one frozen record."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from wal_pipeline.postgres.session import limit_query_time
from wal_pipeline.wal.lsn import Lsn

DISABLED_COMMAND: Final = "(disabled)"  # PostgreSQL shows this as archive_command while archive_mode is off
_COUNT_SECONDS: Final = 2.0
_SETTINGS: Final = (
    "wal_level",
    "archive_mode",
    "archive_library",
    "archive_command",
    "archive_timeout",
    "wal_segment_size",
    "data_directory",
    "data_directory_mode",
    "data_checksums",
    "summarize_wal",
)
_STATE_SQL: Final = """
SELECT current_setting('server_version_num')::int AS server_version_num,
       current_setting('server_version') AS server_version,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       pg_is_in_recovery() AS in_recovery,
       CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END AS timeline,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_lsn() END::text AS wal_lsn,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END::text AS wal_insert_lsn,
       current_setting('basic_archive.archive_directory', true) AS archive_directory,
       clock_timestamp() AS server_at
"""
# Where no transaction ran when the last checkpoint began (oldest_active_xid; 0: the server was shut down then) and none
# has ended since (a snapshot's xmax follows the last xid that ended), the WAL from its redo position on has no commit.
_IDLE_SQL: Final = """
SELECT CASE WHEN NOT pg_is_in_recovery()
             AND oldest_active_xid::text::bigint IN (0, split_part(next_xid, ':', 2)::bigint)
             AND pg_snapshot_xmax(pg_current_snapshot())::text::numeric
                 <= split_part(next_xid, ':', 1)::numeric * 4294967296 + split_part(next_xid, ':', 2)::numeric
            THEN redo_lsn END::text AS idle_since_lsn
FROM pg_control_checkpoint()
"""
_PLACE_SQL: Final = """
SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint AS timeline,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS wal_segment_size
"""
_ROLE_SQL: Final = """
SELECT rolname AS name, rolsuper AS superuser, rolreplication OR rolsuper AS replication,
       has_function_privilege('pg_switch_wal()', 'execute') AS can_switch_wal,
       has_function_privilege('pg_reload_conf()', 'execute') AS can_reload,
       has_function_privilege('pg_ls_archive_statusdir()', 'execute') AS can_list_archive_status,
       pg_has_role('pg_read_all_stats', 'usage') AS can_read_stats,
       pg_has_role('pg_write_server_files', 'usage') AS can_write_files
FROM pg_roles WHERE rolname = current_user
"""
_ARCHIVER_SQL: Final = """
SELECT archived_count, last_archived_wal, last_archived_time AS last_archived_at,
       failed_count, last_failed_wal, last_failed_time AS last_failed_at
FROM pg_stat_archiver
"""


@dataclass(frozen=True, slots=True)
class ArchiverFacts:
    """``pg_stat_archiver``, with two facts from other views.

    ``running`` and ``ready_count`` (files in pg_wal that wait to be archived) are None where the role may not see them,
    ``ready_count`` also where counting them takes too long.
    """

    archived_count: int
    last_archived_wal: str | None
    last_archived_at: datetime | None
    failed_count: int
    last_failed_wal: str | None
    last_failed_at: datetime | None
    running: bool | None = None
    ready_count: int | None = None

    @property
    def is_failing(self) -> bool:
        """True where the archiver's last try failed."""
        if self.last_failed_at is None:
            return False
        return self.last_archived_at is None or self.last_failed_at > self.last_archived_at


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """The rights of the role that we connect as."""

    name: str
    superuser: bool
    replication: bool
    can_switch_wal: bool
    can_reload: bool
    can_write_files: bool


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server at one moment. Reading it changes nothing.

    ``archive_directory`` is ``basic_archive.archive_directory``. ``settings_sources`` maps a setting to the source of
    its value (pg_settings.source: ``default``, ``configuration file``, ``command line`` …). ``file_settings`` are the
    values in the configuration files, in force or not; it is empty for a role that is no superuser.
    ``data_directory`` is None where the role may not see it; ``summarize_wal`` is None before PostgreSQL 17.
    ``idle_since_lsn``: no commit lies in the WAL from there to ``wal_lsn``; None where that is not known.
    """

    server_version_num: int
    server_version: str
    system_identifier: int
    timeline: int
    in_recovery: bool
    wal_lsn: Lsn
    wal_insert_lsn: Lsn | None
    wal_level: str
    archive_mode: str
    archive_library: str
    archive_command: str
    archive_timeout_seconds: int
    archive_directory: str
    wal_segment_size: int
    data_directory: str | None
    group_access: bool
    data_checksums: bool
    summarize_wal: bool | None
    pending_restart: tuple[str, ...]
    settings_sources: Mapping[str, str]
    file_settings: Mapping[str, str]
    archiver: ArchiverFacts
    role: RoleFacts
    server_at: datetime
    idle_since_lsn: Lsn | None = None

    @property
    def major_version(self) -> int:
        """The server's major version, such as 18."""
        return self.server_version_num // 10000

    @property
    def archiver_is_wanted(self) -> bool:
        """True where this server is set to archive now: ``on`` on a primary, ``always`` on a standby too."""
        return self.archive_mode == "always" or (self.archive_mode == "on" and not self.in_recovery)


def read_facts(connection: psycopg.Connection[Any]) -> ServerFacts:
    """Read everything through one open connection.

    Raises: psycopg.Error, which ``PostgresServer`` turns into ours.
    """
    state = _one_row(connection, _STATE_SQL)
    idle_since_lsn = _one_row(connection, _IDLE_SQL)["idle_since_lsn"]  # after the state: it speaks of WAL up to there
    settings = {
        row["name"]: row
        for row in _rows(
            connection, "SELECT name, setting, source, pending_restart FROM pg_settings WHERE name = ANY(%s)", _SETTINGS
        )
    }
    role = _one_row(connection, _ROLE_SQL)
    values = {name: row["setting"] or "" for name, row in settings.items()}
    file_settings = _file_settings(connection, superuser=role["superuser"])
    insert_lsn = state["wal_insert_lsn"]
    return ServerFacts(
        server_version_num=state["server_version_num"],
        server_version=state["server_version"],
        system_identifier=state["system_identifier"] % 2**64,  # SQL has no unsigned numbers: the view shows it signed
        timeline=state["timeline"],
        in_recovery=state["in_recovery"],
        wal_lsn=Lsn.parse(state["wal_lsn"] or "0/0"),
        wal_insert_lsn=Lsn.parse(insert_lsn) if insert_lsn else None,
        wal_level=values["wal_level"],
        archive_mode=values["archive_mode"],
        archive_library=values.get("archive_library", ""),
        archive_command=_archive_command(values["archive_command"], file_settings),
        archive_timeout_seconds=int(values["archive_timeout"]),
        archive_directory=state["archive_directory"] or "",
        wal_segment_size=int(values["wal_segment_size"]),
        data_directory=values.get("data_directory") or None,
        group_access=values.get("data_directory_mode", "0700") == "0750",
        data_checksums=values["data_checksums"] == "on",
        summarize_wal=values["summarize_wal"] == "on" if "summarize_wal" in values else None,
        pending_restart=_pending_restart(connection),
        settings_sources={name: row["source"] for name, row in settings.items()},
        file_settings=file_settings,
        archiver=_archiver(connection, role),
        role=RoleFacts(**{name: role[name] for name in RoleFacts.__slots__}),
        server_at=state["server_at"],
        idle_since_lsn=Lsn.parse(idle_since_lsn) if idle_since_lsn else None,
    )


def read_system_identifier(connection: psycopg.Connection[Any]) -> int:
    """Read the system identifier alone. Raises: psycopg.Error."""
    sql = "SELECT system_identifier FROM pg_control_system()"
    return int(_one_row(connection, sql)["system_identifier"]) % 2**64


def read_wal_place(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Read a primary's timeline and WAL segment size. Raises: psycopg.Error."""
    place = _one_row(connection, _PLACE_SQL)
    return int(place["timeline"]), int(place["wal_segment_size"])


def _archive_command(shown: str, file_settings: Mapping[str, str]) -> str:
    """Return the configured command, also while archive_mode is off and PostgreSQL hides it."""
    return file_settings.get("archive_command", "") if shown == DISABLED_COMMAND else shown


def _file_settings(connection: psycopg.Connection[Any], *, superuser: bool) -> dict[str, str]:
    """Return the values in the configuration files, the last of each name; empty where the role may not see them."""
    if not superuser:
        return {}
    sql = "SELECT name, setting FROM pg_file_settings WHERE name = ANY(%s) ORDER BY seqno"
    return {row["name"]: row["setting"] or "" for row in _rows(connection, sql, _SETTINGS)}


def _pending_restart(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    rows = _rows(connection, "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name")
    return tuple(row["name"] for row in rows)


def _archiver(connection: psycopg.Connection[Any], role: dict[str, Any]) -> ArchiverFacts:
    running: bool | None = None
    ready_count: int | None = None
    if role["can_read_stats"]:
        sql = "SELECT count(*) > 0 AS running FROM pg_stat_activity WHERE backend_type = 'archiver'"
        running = _one_row(connection, sql)["running"]
    facts = _one_row(connection, _ARCHIVER_SQL)
    if role["can_list_archive_status"]:
        ready_count = _ready_count(connection)
    return ArchiverFacts(**facts, running=running, ready_count=ready_count)


def _ready_count(connection: psycopg.Connection[Any]) -> int | None:
    """Count the files that wait in pg_wal; None where that takes long: a folder with very many of them is slow to read.

    It must be the session's last statement, because its time limit stays.
    """
    limit_query_time(connection, _COUNT_SECONDS)
    sql = "SELECT count(*) AS ready FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    try:
        return int(_one_row(connection, sql)["ready"])
    except (psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFile):
        return None


def _rows(connection: psycopg.Connection[Any], sql: str, *parameters: object) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        values = [list(value) if isinstance(value, tuple) else value for value in parameters]
        return cursor.execute(sql.encode(), values or None).fetchall()


def _one_row(connection: psycopg.Connection[Any], sql: str) -> dict[str, Any]:
    return _rows(connection, sql)[0]


def archiver_trouble(archiver: ArchiverFacts, failed_before: int | None = None) -> str | None:
    """Describe the archiver process's trouble by pg_stat_archiver; None where it shows none.

    With ``failed_before``, only failures after that count matter.
    """
    if archiver.running is False:
        return "the archiver process does not run; the server's log says why"
    if archiver.is_failing and (failed_before is None or archiver.failed_count > failed_before):
        failed_at = f"{archiver.last_failed_at:%Y-%m-%d %H:%M:%S%z}"
        return (
            f"the last try to archive '{archiver.last_failed_wal}' failed at {failed_at}"
            f" ({archiver.failed_count} failures so far); the server's log says why"
        )
    return None
