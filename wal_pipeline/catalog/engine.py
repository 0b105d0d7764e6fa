"""Runs the catalog's transactions on SQLite or PostgreSQL, and raises their errors as ours."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Table,
    any_,
    create_engine,
    event,
    func,
    literal,
    select,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from wal_pipeline.errors import READ_ONLY_HINT, CatalogError, CatalogFullError, cause_hint
from wal_pipeline.host.file_owner import give_to_folder_owner, is_read_only, owner_trouble

if TYPE_CHECKING:
    import psycopg
    from psycopg.adapt import Dumper

BUSY_TIMEOUT_SECONDS: Final = 30
CONNECT_TIMEOUT_SECONDS: Final = 10
STATEMENT_TIMEOUT_SECONDS: Final = 600
_SESSION: Final[Mapping[str, str]] = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "default_transaction_read_only": "off",
    "statement_timeout": f"{STATEMENT_TIMEOUT_SECONDS}s",
    "lock_timeout": f"{BUSY_TIMEOUT_SECONDS}s",
    "idle_in_transaction_session_timeout": "0",
}
_CODECS: Final = {"UTF8": "utf-8", "SQL_ASCII": "utf-8", "LATIN1": "latin-1"}
_WRITES: Final = "wal_pipeline_writes"
_DISK_FULL: Final = "53100"  # PostgreSQL's SQLSTATE
Row = Mapping[str, Any]


class Database:
    """One SQLite file or PostgreSQL database, used by several processes and threads at once."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(url) if self.is_sqlite else _postgres_engine(url)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        self._upserts: dict[tuple[str, tuple[str, ...], bool], Executable] = {}
        self._prepare: Callable[[Database], None] | None = None
        self._prepared_file: tuple[int, int] | None = None
        self._preparing = threading.RLock()
        self._is_preparing = False

    def keep_prepared(self, prepare: Callable[["Database"], None]) -> None:
        """Call ``prepare`` now, and again before the next transaction where SQLite's file was removed or replaced.

        Otherwise a process would continue to write into the removed file, and lose all that it records.

        Raises: CatalogError.
        """
        self._prepare = prepare
        prepare(self)
        self._prepared_file = self._file_identity()

    @property
    def shown_url(self) -> str:
        """The URL without its password, for messages."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for reading. Raises: CatalogError."""
        self._follow_file()
        with self._errors_as_ours(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection in a transaction that writes: all changes are kept, or none. Raises: CatalogError.

        On SQLite it begins IMMEDIATE: a transaction that reads first and writes later would fail at once, without
        waiting, when another process wrote in between.
        """
        self._follow_file()
        with self._errors_as_ours(), self._writer.begin() as connection:
            yield connection

    def upsert(self, connection: Connection, table: Table, rows: Sequence[Row], *, keep: Collection[str] = ()) -> None:
        """Insert rows, or update those whose primary key exists; columns in ``keep`` stay as they are."""
        if not rows:
            return
        names = tuple(name for name in rows[0] if name not in table.primary_key.columns)
        changed = tuple(name for name in names if name not in keep)
        connection.execute(self._upsert(table, changed), _in_key_order(table, rows))

    def upsert_sums(self, connection: Connection, table: Table, row: Row, sums: Collection[str]) -> None:
        """Insert a row, or add its columns ``sums`` to those of the row with the same primary key."""
        connection.execute(self._upsert(table, tuple(sums), add=True), [dict(row)])

    def _upsert(self, table: Table, changed: tuple[str, ...], *, add: bool = False) -> Executable:
        """Build the statement once: SQLAlchemy copies every column for ``excluded``, and is slower than the query."""
        key = (table.name, changed, add)
        if key not in self._upserts:
            insert = self.insert(table)
            new = insert.excluded
            changes = {name: table.c[name] + new[name] if add else new[name] for name in changed}
            keys = list(table.primary_key)
            self._upserts[key] = (
                insert.on_conflict_do_update(index_elements=keys, set_=changes)
                if changes
                else insert.on_conflict_do_nothing(index_elements=keys)
            )
        return self._upserts[key]

    def insert_absent(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Insert the rows whose primary key does not exist yet, and leave the others as they are."""
        if rows:
            statement = self.insert(table).on_conflict_do_nothing(index_elements=list(table.primary_key))
            connection.execute(statement, _in_key_order(table, rows))

    def insert(self, table: Table) -> Any:
        """Return this database's INSERT, which knows ON CONFLICT. Both dialects spell it the same."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def among(self, column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
        """Return ``column IN values`` with one parameter, so that 10,000 values make no long statement."""
        if self.is_sqlite:
            rows = func.json_each(json.dumps(list(values))).table_valued("value")
            return column.in_(select(rows.c.value))
        return column == any_(literal(list(values), postgresql.ARRAY(SqlText)))

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def _follow_file(self) -> None:
        if self._prepare is None or self._file_identity() == self._prepared_file:
            return
        with self._preparing:
            if self._is_preparing or self._file_identity() == self._prepared_file:
                return
            self._is_preparing = True
            try:
                self._engine.dispose()
                self._prepare(self)
                self._prepared_file = self._file_identity()
            finally:
                self._is_preparing = False

    def _file_identity(self) -> tuple[int, int] | None:
        """Return the device and inode, which tell SQLite's file from another of its name; None without a file."""
        if not self.is_sqlite:
            return None
        try:
            found = os.stat(str(self.url.database))  # noqa: PTH116 - before each transaction
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @contextmanager
    def _errors_as_ours(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if _is_full(error.orig):
                raise self._full() from error
            # SQLAlchemy's own text would show the statement's parameters.
            raise CatalogError(
                f"catalog '{self.shown_url}' failed: {_first_line(error.orig)}", hint=self._hint(error.orig)
            ) from error
        except SQLAlchemyError as error:
            raise CatalogError(f"catalog '{self.shown_url}' failed: {_first_line(error)}") from error
        except (NotImplementedError, UnicodeError) as error:  # the driver's, for a value that it cannot read or write
            raise CatalogError(
                f"catalog '{self.shown_url}' has a value that cannot be read or written: {type(error).__name__}"
            ) from error

    def _file_trouble(self) -> str | None:
        """Name the file that this user may not write: SQLite itself names none."""
        file = Path(str(self.url.database))
        files = [path for path in _sqlite_files(file) if path.exists()]
        return owner_trouble([file.parent, *files], os.R_OK | os.W_OK)

    def _full(self) -> CatalogFullError:
        folder = Path(str(self.url.database)).parent
        disk = f"the disk of '{folder}' is full" if self.is_sqlite else "the disk of its server is full"
        return CatalogFullError(
            f"catalog '{self.shown_url}' cannot be written: {disk}",
            hint="Make room on that disk: a few MiB are enough for archiving to continue and free the rest.",
        )

    def _hint(self, cause: object) -> str:
        if self.is_sqlite and is_read_only(Path(str(self.url.database)).parent):
            return READ_ONLY_HINT
        return self._usual_hint(cause)

    def _usual_hint(self, cause: object) -> str:
        if self.is_sqlite and isinstance(cause, sqlite3.DatabaseError) and "database is locked" in str(cause):
            return f"Another process has been writing to the catalog for {BUSY_TIMEOUT_SECONDS} seconds."
        if self.is_sqlite and (trouble := self._file_trouble()) is not None:
            return f"{trouble}."
        if self.is_sqlite and not isinstance(cause, sqlite3.OperationalError):
            return "If the file is damaged, 'wal-pipeline catalog rebuild' makes it again from the stores."
        state = getattr(cause, "sqlstate", None)
        if state == "57014":
            return (
                f"A statement of the catalog may take {STATEMENT_TIMEOUT_SECONDS} s: see what its database waits for."
            )
        if state == "55P03":
            return f"Another session holds a lock on the catalog for longer than {BUSY_TIMEOUT_SECONDS} s."
        return "Check WAL_PIPELINE_CATALOG_URL, and that the database answers and can be written."


def open_database(url: str) -> Database:
    """Prepare the database of a URL (``sqlite:///path`` or ``postgresql://…``) without connecting to it.

    The folder of an SQLite file is made. Raises: CatalogError.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise CatalogError("the catalog's URL cannot be read", hint=_URL_HINT) from error
    if backend == "postgresql":
        return Database(parsed.set(drivername="postgresql+psycopg"))
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        _make_folder(Path(str(parsed.database)))
        return Database(parsed.set(drivername="sqlite+pysqlite"))
    raise CatalogError(
        f"the catalog's URL names '{parsed.drivername}', expected an SQLite file or a PostgreSQL database",
        hint=_URL_HINT,
    )


_URL_HINT: Final = "Use sqlite:////folder/catalog.db or postgresql://user:password@host/database."


def sqlite_file(url: str) -> Path | None:
    """Return the file of a catalog in SQLite; None for another database, or for what is no URL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if is_file else None


def _make_folder(file: Path) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogError(
            f"the catalog's folder '{file.parent}' cannot be made: {error.strerror}",
            hint=cause_hint(error) or "Set WAL_PIPELINE_CATALOG_URL to a file in a folder that can be written.",
        ) from error


def _postgres_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=4,
        pool_pre_ping=True,  # a restarted server must not fail the first statement after it
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": "wal-pipeline catalog",
            "client_encoding": "UTF8",  # in SQL_ASCII, text would come as bytes
        },
    )
    # First: what SQLAlchemy asks a new connection must be read in the same form as all else.
    event.listen(engine, "connect", _set_up_postgres, insert=True)
    return engine


def _set_up_postgres(connection: "psycopg.Connection[Any]", _record: object) -> None:
    """Set all that our reading and writing depends on: anyone may change it for the server, the database, the role.

    ``search_path`` is left as it is, because it says where the tables are.
    """
    before, connection.autocommit = connection.autocommit, True
    try:
        connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in _SESSION.items()).encode())
    finally:
        connection.autocommit = before
    connection.adapters.register_dumper(str, _writable_text(connection.info.parameter_status("server_encoding")))


def _writable_text(server_encoding: str | None) -> "type[Dumper]":
    """Return the writer of text for a database's encoding. A character that it lacks becomes its code."""
    from psycopg.types.string import StrDumperUnknown  # noqa: PLC0415 - only with a catalog on PostgreSQL

    codec = _CODECS.get(server_encoding or "", "ascii")

    class WritableText(StrDumperUnknown):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.encode(codec, "backslashreplace").decode(codec))

    return WritableText


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url, pool_size=4, max_overflow=16, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "connect", lambda *_: _give_away(Path(str(url.database))))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver begins transactions late and never IMMEDIATE, so _begin_sqlite begins them.
    connection.isolation_level = None
    # WAL: readers and one writer at once. FULL: a committed record survives a power failure, because the spool file is
    # removed after it. Both survive a killed process.
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _sqlite_files(file: Path) -> list[Path]:
    return [file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm")]


def _give_away(file: Path) -> None:
    for path in _sqlite_files(file):
        give_to_folder_owner(path)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to the WAL journal, and retry: SQLite fails at once, without a timeout, while another process switches."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _in_key_order(table: Table, rows: Sequence[Row]) -> list[Row]:
    # Two transactions that lock the same rows in the same order cannot deadlock.
    keys = [column.name for column in table.primary_key]
    return sorted(rows, key=lambda row: tuple(str(row[key]) for key in keys))


def _is_full(cause: object) -> bool:
    """Whether a database's error means that its disk is full."""
    if isinstance(cause, sqlite3.Error):
        code: int = getattr(cause, "sqlite_errorcode", 0)
        # The processes' shared memory is a file beside the database, which needs a few pages too.
        return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE
    return getattr(cause, "sqlstate", None) == _DISK_FULL


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
