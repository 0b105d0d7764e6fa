"""Talks to the PostgreSQL server through psycopg: reads its facts, and changes the few things that we need."""

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from wal_pipeline.archive.format.configuration import KeptConfiguration
from wal_pipeline.errors import PostgresError, SettingsError
from wal_pipeline.host.libpq_variables import absolute_files, file_values
from wal_pipeline.postgres.configuration_files import read_configuration
from wal_pipeline.postgres.server_facts import ServerFacts, read_facts, read_system_identifier, read_wal_place
from wal_pipeline.postgres.session import STATEMENT_SECONDS, KeptSession, LongSession, error_text, open_session
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, segment_at
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES

BASIC_ARCHIVE: Final = "basic_archive"
_FORM_VARIABLES: Final = ("PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGGEQO")
_PING_TIMEOUT_SECONDS: Final = 5
_IDENTIFIER_SECONDS: Final = 5
_CONNINFO_HINT: Final = (
    "Write it as host=… port=… user=…, with quotes around a value that has spaces, or as postgresql://…, "
    "with %40 for an '@' in a password, %2F for a '/' and %3A for a ':'."
)


class AlterableSetting(StrEnum):
    """The server settings that we change; we change no others."""

    WAL_LEVEL = "wal_level"
    ARCHIVE_MODE = "archive_mode"
    ARCHIVE_LIBRARY = "archive_library"
    ARCHIVE_COMMAND = "archive_command"
    ARCHIVE_TIMEOUT = "archive_timeout"
    BASIC_ARCHIVE_DIRECTORY = "basic_archive.archive_directory"
    SUMMARIZE_WAL = "summarize_wal"

    @property
    def needs_restart(self) -> bool:
        """True where PostgreSQL takes a new value only when it starts."""
        return self in (AlterableSetting.WAL_LEVEL, AlterableSetting.ARCHIVE_MODE)


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One server setting and its new value."""

    setting: AlterableSetting
    value: str

    @property
    def line(self) -> str:
        """The statement for a person to type, with the value as a literal."""
        return self.statement().as_string(None).replace("=  ", "= ") + ";"  # psycopg puts a space before E''

    def statement(self) -> sql.Composed:
        """Return the statement to send. The name comes from a fixed set, the value becomes a literal."""
        return sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.SQL(self.setting.value), sql.Literal(self.value))


@dataclass(frozen=True, slots=True)
class SwitchedSegment:
    """The segment that a switch finished, and the LSN up to which it holds records."""

    file: WalFileName
    end_lsn: Lsn


class PostgresServer:
    """One server. Each call opens a connection of its own, so that a restart between two calls does no harm."""

    def __init__(
        self,
        conninfo: str = "",
        *,
        variables: Mapping[str, str] | None = None,
        folder: Path | None = None,
        connect_timeout_seconds: int = 10,
        statement_timeout_seconds: int = STATEMENT_SECONDS,
    ) -> None:
        """Take libpq's connection string. Parameters that it lacks come from ``variables``, which are libpq's ``PG*``,
        then from the environment and libpq's files. Relative paths in the string begin at ``folder``.

        Raises: SettingsError where the string cannot be read, without showing it: it may hold a password.
        """
        given = absolute_files(_connection_parameters(conninfo), folder or Path.cwd())
        self._parameters: dict[str, Any] = {**_by_keyword(variables or {}), **given}
        self._connect_timeout_seconds = connect_timeout_seconds
        self._statement_timeout_seconds = statement_timeout_seconds

    @property
    def address(self) -> str:
        """Where the server is, for a person: host or socket folder, and port; also from the PG* variables."""
        defaults = {option.keyword: option.val for option in psycopg.pq.Conninfo.get_defaults()}
        host, port = (
            self._parameters.get(name) or (defaults.get(name.encode()) or b"").decode(errors="replace")
            for name in ("host", "port")
        )
        return f"{host or 'the default socket'}, port {port}"

    def answers(self) -> bool:
        """Return whether any server answers there, also one that starts up or does not let us in (PQping)."""
        parameters = {"connect_timeout": _PING_TIMEOUT_SECONDS, **self._parameters}
        found = psycopg.pq.PGconn.ping(make_conninfo("", **parameters).encode())
        return found in (psycopg.pq.Ping.OK, psycopg.pq.Ping.REJECT)

    @property
    def connection_files(self) -> dict[str, Path]:
        """The files that the connection needs, by libpq's keywords."""
        return file_values({name: str(value) for name, value in self._parameters.items()})

    def facts(self) -> ServerFacts:
        """Read the server's facts. Raises: PostgresError."""
        with self._session("reading the server's state") as connection:
            return read_facts(connection)

    def system_identifier(self) -> int:
        """Ask for the system identifier alone, within seconds: an archiving run waits for it. Raises: PostgresError."""
        with self._session("reading the system identifier", _IDENTIFIER_SECONDS) as connection:
            return read_system_identifier(connection)

    def missing_names(self, *, role: str, database: str) -> tuple[str, ...]:
        """Return which of a role and a database the server lacks, for a message. Raises: PostgresError."""
        with self._session("looking for a role and a database") as connection:
            roles = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchall()
            databases = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchall()
        named = ((roles, f"role '{role}'"), (databases, f"database '{database}'"))
        return tuple(name for found, name in named if not found)

    def has_library(self, name: str) -> bool | None:
        """Return whether an archive library can be loaded; None where the role may not try (not a superuser)."""
        with self._session(f"loading the library '{name}'") as connection:
            try:
                connection.execute(sql.SQL("LOAD {}").format(sql.Literal(name)))
            except psycopg.errors.UndefinedFile:
                return False
            except psycopg.errors.InsufficientPrivilege:
                return None
            return True

    def alter_system(self, changes: tuple[SettingChange, ...]) -> None:
        """Write the changes into postgresql.auto.conf; ``reload`` applies them.

        PostgreSQL 15 knows ``basic_archive.archive_directory`` only after the library is loaded, so this loads it
        where that setting is among them. Raises: PostgresError, with the statement that was refused.
        """
        with self._session("changing the server's settings") as connection:
            if any(change.setting is AlterableSetting.BASIC_ARCHIVE_DIRECTORY for change in changes):
                connection.execute(sql.SQL("LOAD {}").format(sql.Literal(BASIC_ARCHIVE)))
            for change in changes:
                try:
                    connection.execute(change.statement())
                except psycopg.Error as error:
                    raise PostgresError(f"PostgreSQL refused '{change.line}': {error_text(error)}") from error

    def reload(self) -> None:
        """Ask the server to read its configuration files again; it does so a moment later. Raises: PostgresError."""
        with self._session("reloading the server's settings") as connection:
            connection.execute("SELECT pg_reload_conf()")

    def switch_wal(self) -> SwitchedSegment:
        """Write one small record and finish the current segment, so that it is archived now.

        Without the record, PostgreSQL does nothing where the segment is still empty. Raises: PostgresError.
        """
        with self._session("finishing a WAL segment") as connection:
            timeline, segment_size = read_wal_place(connection)
            connection.execute("SELECT pg_logical_emit_message(true, 'wal-pipeline', 'archiving is checked')")
            [(end,)] = connection.execute("SELECT pg_switch_wal()::text").fetchall()
        end_lsn = Lsn.parse(end)
        # The byte before the end is in the finished segment, also where the end is a segment's border, on which
        # pg_walfile_name names the segment before up to PostgreSQL 16 and the segment after from 17 on.
        return SwitchedSegment(segment_at(timeline, Lsn(end_lsn - 1), segment_size), end_lsn)

    def first_wal_bytes(self) -> bytes | None:
        """Return the first bytes of the segment that is being written, enough for its page header.

        None on a standby, and where the role may not read the server's files. Raises: PostgresError.
        """
        file = "'pg_wal/' || pg_walfile_name(pg_current_wal_lsn())"
        statement = f"SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_read_binary_file({file}, 0, %s, true) END"
        with self._session("reading the first page of the WAL") as connection:
            try:
                row = connection.execute(statement.encode(), (LONG_HEADER_BYTES,)).fetchone()
            except psycopg.errors.InsufficientPrivilege:
                return None
        return None if row is None or row[0] is None else bytes(row[0])

    def write_file(self, path: Path, text: str) -> None:
        """Have the server write one line into a new file on its own host, as its own operating system user.

        Needs a superuser or a member of pg_write_server_files. Raises: PostgresError.
        """
        statement = sql.SQL("COPY (SELECT {}) TO {}").format(sql.Literal(text), sql.Literal(str(path)))
        with self._session(f"writing '{path}' by the server") as connection:
            connection.execute(statement)

    def has_closed_folder(self, name: str) -> bool | None:
        """Return whether the data directory has a folder that the server cannot open; None where the role may not look.

        Raises: PostgresError.
        """
        may_look = "SELECT has_function_privilege('pg_ls_dir(text, boolean, boolean)', 'execute')"
        with self._session(f"opening '{name}' in the data directory") as connection:
            [(allowed,)] = connection.execute(may_look).fetchall()
            if not allowed:
                return None
            try:
                connection.execute("SELECT count(*) FROM pg_ls_dir(%s, true, true)", (name,))
            except psycopg.errors.InsufficientPrivilege:  # of the operating system: the role's right was asked for
                return True
            except psycopg.errors.WrongObjectType:
                return False  # a file
            return False

    def configuration(self) -> KeptConfiguration | None:
        """Return the configuration that is outside the data directory; None where the role may not see where it is.

        Raises: PostgresError.
        """
        with self._session("reading the configuration files") as connection:
            return read_configuration(connection, read_facts(connection).system_identifier)

    def program_conninfo(self, options: str = "") -> str:
        """Return the connection string for a program's command line: without the password, which ``ps`` would show.

        ``options`` are added to the connection's own.

        Raises: SettingsError for a key's password, which libpq reads from no environment variable.
        """
        if self._parameters.get("sslpassword"):
            raise SettingsError(
                "the connection string has 'sslpassword', which a program's command line would show",
                hint="Put it into a service file (~/.pg_service.conf) and connect with service=NAME.",
            )
        parameters = {name: value for name, value in self._parameters.items() if name != "password"}
        if options:
            before = parameters.get("options") or os.environ.get("PGOPTIONS", "")
            parameters["options"] = f"{before} {options}".strip()
        return make_conninfo(**parameters)

    def program_environment(self) -> dict[str, str]:
        """Return the environment for a PostgreSQL program: ours, with the password, and messages in English.

        libpq's variables for the form of values are left out: a wrong one would only keep the program from connecting.
        """
        kept = {name: value for name, value in os.environ.items() if name not in _FORM_VARIABLES}
        environment = {**kept, "LC_ALL": "C"}
        password = self._parameters.get("password")
        return {**environment, "PGPASSWORD": str(password)} if password else environment

    @property
    def secret(self) -> str:
        """The password of the connection, to keep it out of messages; empty where it has none of its own."""
        return str(self._parameters.get("password") or os.environ.get("PGPASSWORD") or "")

    def session(
        self, purpose: str, limit_seconds: int | None = None
    ) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Open a session for one purpose, in which each statement may take ``limit_seconds``. Raises: PostgresError."""
        return open_session(
            self._parameters,
            purpose,
            limit_seconds=limit_seconds or self._statement_timeout_seconds,
            connect_timeout_seconds=self._connect_timeout_seconds,
        )

    def keep_session(self, purpose: str) -> KeptSession:
        """Return a session that stays open between two questions; it connects at the first one."""
        return KeptSession(
            self._parameters,
            purpose,
            limit_seconds=self._statement_timeout_seconds,
            connect_timeout_seconds=self._connect_timeout_seconds,
        )

    def open_long_session(self, purpose: str) -> LongSession:
        """Open a session that has no time limits, for a work of hours. Raises: PostgresError."""
        return LongSession(self._parameters, purpose, connect_timeout_seconds=self._connect_timeout_seconds)

    def _session(
        self, purpose: str, most_seconds: int | None = None
    ) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Open a session for one purpose, with ``most_seconds`` for it at most. Its errors are PostgresError."""
        return open_session(
            self._parameters,
            purpose,
            limit_seconds=min(self._statement_timeout_seconds, most_seconds or self._statement_timeout_seconds),
            connect_timeout_seconds=self._connect_timeout_seconds,
        )


def _by_keyword(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the values of libpq's variables by the keywords of a connection string."""
    options = psycopg.pq.Conninfo.get_defaults()
    keywords = {option.envvar.decode(): option.keyword.decode() for option in options if option.envvar}
    return {keywords[name]: value for name, value in variables.items() if name in keywords}


def _connection_parameters(conninfo: str) -> dict[str, Any]:
    """Read a connection string, and refuse one that libpq would split in the middle of a password."""
    try:
        parameters = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        raise SettingsError("the PostgreSQL connection string cannot be read", hint=_CONNINFO_HINT) from None
    port = str(parameters.get("port") or "")
    is_uri = re.match(r"postgres(ql)?://", conninfo) is not None
    torn = is_uri and any("@" in str(parameters.get(name) or "") for name in ("host", "dbname"))
    if torn or not re.fullmatch(r"[0-9,]*", port):
        raise SettingsError("the PostgreSQL connection string cannot be read", hint=_CONNINFO_HINT)
    return dict(parameters)
