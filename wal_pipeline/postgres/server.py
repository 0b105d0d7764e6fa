"""The PostgreSQL server, through psycopg: what it says about itself, and the few things that we ask it to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from wal_pipeline.errors import PostgresError, SettingsError
from wal_pipeline.postgres.server_facts import ServerFacts, read_facts
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, segment_at
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES

BASIC_ARCHIVE: Final = "basic_archive"
_CONNECT_HINT: Final = (
    "Set WAL_PIPELINE_CONNINFO or PGHOST, PGPORT, PGUSER and PGPASSWORD (or a ~/.pgpass file) "
    "to those of a running server."
)
_CONNINFO_HINT: Final = (
    "Write it as host=… port=… user=…, with quotes around a value that has spaces, or as postgresql://…, "
    "with %40 for an '@' in a password, %2F for a '/' and %3A for a ':'."
)


class AlterableSetting(StrEnum):
    """The server settings that we change, and no others."""

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
    """One server setting and the value that it shall have."""

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

    def __init__(self, conninfo: str = "", *, connect_timeout_seconds: int = 10, statement_timeout_seconds: int = 30):
        """Take libpq's connection string; what it leaves out comes from ``PG*`` variables and libpq's files.

        Raises: SettingsError where the string cannot be read, without showing it: it may hold a password.
        """
        self._parameters = _connection_parameters(conninfo)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._statement_timeout_seconds = statement_timeout_seconds

    def facts(self) -> ServerFacts:
        """Look at the server. Raises: PostgresError."""
        with self._connection() as connection:
            return read_facts(connection)

    def has_library(self, name: str) -> bool | None:
        """Return whether an archive library can be loaded; None where the role may not try (not a superuser)."""
        with self._connection() as connection:
            try:
                connection.execute(sql.SQL("LOAD {}").format(sql.Literal(name)))
            except psycopg.errors.UndefinedFile:
                return False
            except psycopg.errors.InsufficientPrivilege:
                return None
            return True

    def alter_system(self, changes: tuple[SettingChange, ...]) -> None:
        """Write the changes into postgresql.auto.conf; ``reload`` puts them into force.

        PostgreSQL 15 knows ``basic_archive.archive_directory`` only after the library is loaded, so this loads it
        where that setting is among them. Raises: PostgresError, with the statement that was refused.
        """
        with self._connection() as connection:
            if any(change.setting is AlterableSetting.BASIC_ARCHIVE_DIRECTORY for change in changes):
                connection.execute(sql.SQL("LOAD {}").format(sql.Literal(BASIC_ARCHIVE)))
            for change in changes:
                try:
                    connection.execute(change.statement())
                except psycopg.Error as error:
                    raise PostgresError(f"PostgreSQL refused '{change.line}': {_text(error)}") from error

    def reload(self) -> None:
        """Ask the server to read its configuration files again; it does so a moment later. Raises: PostgresError."""
        with self._connection() as connection:
            connection.execute("SELECT pg_reload_conf()")

    def switch_wal(self) -> SwitchedSegment:
        """Write one small record and finish the current segment, so that it is archived now.

        Without the record, PostgreSQL does nothing where the segment is still empty. Raises: PostgresError.
        """
        with self._connection() as connection:
            facts = read_facts(connection)
            connection.execute("SELECT pg_logical_emit_message(true, 'wal-pipeline', 'archiving is checked')")
            row = connection.execute("SELECT pg_switch_wal()::text").fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        end_lsn = Lsn.parse(row[0])
        # The byte before the end is in the finished segment, also where the end is a segment's border, on which
        # pg_walfile_name names the segment before up to PostgreSQL 16 and the segment after from 17 on.
        return SwitchedSegment(segment_at(facts.timeline, Lsn(end_lsn - 1), facts.wal_segment_size), end_lsn)

    def first_wal_bytes(self) -> bytes | None:
        """Return the first bytes of the segment that is being written, enough for its page header.

        None on a standby, and where the role may not read the server's files. Raises: PostgresError.
        """
        file = "'pg_wal/' || pg_walfile_name(pg_current_wal_lsn())"
        statement = f"SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_read_binary_file({file}, 0, %s, true) END"
        with self._connection() as connection:
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
        with self._connection() as connection:
            connection.execute(statement)

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Open a connection in autocommit mode (ALTER SYSTEM needs it) with a safe search_path and time limits."""
        try:
            with psycopg.connect(
                **{
                    "application_name": "wal-pipeline",
                    "connect_timeout": self._connect_timeout_seconds,
                    "tcp_user_timeout": self._statement_timeout_seconds * 1000,
                    **self._parameters,
                },
                autocommit=True,
            ) as connection:
                connection.execute("SELECT pg_catalog.set_config('search_path', 'pg_catalog', false)")
                connection.execute(f"SET statement_timeout = '{self._statement_timeout_seconds}s'".encode())
                yield connection
        except psycopg.Error as error:
            raise self._translated(error) from None  # libpq's texts may repeat what the connection string says

    def _translated(self, error: psycopg.Error) -> PostgresError:
        text = _text(error)
        password = str(self._parameters.get("password") or "")
        if password:
            text = text.replace(password, "***")
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return PostgresError(
                f"PostgreSQL refused: {text}", hint="Connect as a superuser, or grant the role what it lacks."
            )
        if isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08")[:2] in ("08", "28", "3D", "57"):
            return PostgresError(f"cannot connect to PostgreSQL: {text}", hint=_CONNECT_HINT)
        return PostgresError(f"PostgreSQL answered: {text}")


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


def _text(error: psycopg.Error) -> str:
    """Return PostgreSQL's message as one line, with its detail and hint where the server sent them."""
    diagnostic = error.diag
    parts = [diagnostic.message_primary or str(error), diagnostic.message_detail or ""]
    return " ".join(" ".join(part.split()) for part in parts if part)
