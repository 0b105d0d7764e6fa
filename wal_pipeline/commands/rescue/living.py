"""Loads rescued tables into a living database, beside its own, and touches nothing else of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from wal_pipeline.archive.recovery.names.identifiers import quote_identifier, quoted_name
from wal_pipeline.commands.rescue.tables import FoundTable
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.pg_dump import DumpPrograms
from wal_pipeline.postgres.server import PostgresServer

_FACTS: Final = """
SELECT current_setting('server_version_num')::int / 10000, current_database(), current_user,
  pg_is_in_recovery()
    OR (SELECT reset_val::boolean FROM pg_settings WHERE name = 'default_transaction_read_only'),
  has_database_privilege(current_database(), 'CREATE')
"""
_SCHEMA: Final = "SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %s"
_TAKEN: Final = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY (%s::text[]) ORDER BY c.relname LIMIT 1
"""


class LivingDatabase:
    """The database that rescued tables are loaded into."""

    def __init__(self, server: PostgresServer, schema: str) -> None:
        self._server = server
        self.schema = schema
        self.name = ""  # known once it was checked
        self.has_schema = False

    @property
    def address(self) -> str:
        """Where it is, without credentials."""
        return f"{self._server.address}, database '{self.name}'" if self.name else self._server.address

    def check(self, names: Sequence[str], major: int | None = None) -> None:
        """Refuse a database into which the tables cannot be loaded. It is only asked, and nothing is changed.

        ``names`` are the tables' names. ``major`` is the rescued cluster's version, None: not known yet.

        Raises: PostgresError where it does not answer; RestoreError.
        """
        self._server.program_conninfo()
        with self.session("looking whether tables can be loaded") as connection:
            row = connection.execute(_FACTS).fetchone()
            if row is None:
                raise PostgresError("PostgreSQL returned no row for its version")
            version, self.name, role, read_only, may_create = row
            schema = connection.execute(_SCHEMA, (self.schema,)).fetchone()
            taken = connection.execute(_TAKEN, (self.schema, list(names))).fetchone()
        self.has_schema = schema is not None
        if taken is not None:
            raise RestoreError(
                f"{quoted_name(self.schema, str(taken[0]))} is in database '{self.name}', and nothing is written over",
                hint="Name another schema with --as, or drop what is there.",
            )
        if read_only:
            raise RestoreError(
                f"database '{self.name}' at {self._server.address} takes no writes",
                hint="It is a standby, or default_transaction_read_only is on: name the primary with --into.",
            )
        if not (may_create if schema is None else schema[0]):
            kind, on = ("schema", self.schema) if self.has_schema else ("database", str(self.name))
            raise RestoreError(
                f"role '{role}' may not create anything in {kind} '{on}'",
                hint=f"Connect as its owner, or: GRANT CREATE ON {kind.upper()} {quote_identifier(on)} "
                f"TO {quote_identifier(str(role))}",
            )
        if major is not None and version < major:
            raise RestoreError(
                f"database '{self.name}' is of PostgreSQL {version}, older than the rescued cluster ({major})",
                hint="A dump is only sure to load into the same or a newer version: write one with --output, and look "
                "at it with pg_restore --file=-.",
            )

    @contextmanager
    def session(self, purpose: str, limit_seconds: int | None = None) -> Iterator[psycopg.Connection[Any]]:
        """Open a session, with names in UTF-8. Raises: PostgresError."""
        with self._server.session(purpose, limit_seconds) as connection:
            connection.execute("SET client_encoding = 'UTF8'")
            yield connection

    def load(self, dump: Path, entries: Path, binaries: Binaries) -> None:
        """Load a dump in one transaction: all of it or nothing. ``entries`` is for the list of what it holds.

        Raises: PostgresError, RestoreError.
        """
        server = self._server
        programs = DumpPrograms(binaries, server.program_environment(), secret=server.secret)
        entries.write_text(programs.entries(dump, with_schema=not self.has_schema), encoding="utf-8")
        try:
            programs.load(dump, entries, server.program_conninfo())
        except PostgresError as error:
            raise RestoreError(
                f"nothing was loaded into database '{self.name}': {error.message}",
                hint="The transaction was rolled back. What the message names can be made there first; --output "
                "writes a dump instead.",
            ) from None

    def count(self, tables: Sequence[FoundTable], limit_seconds: int) -> dict[tuple[str, str], int]:
        """Count the rows of the loaded tables, by the schema and name that they came from. Raises: PostgresError."""
        with self.session("counting the loaded rows", limit_seconds) as connection:
            return {one.pair: count_of(connection, (self.schema, one.name)) for one in tables if one.has_rows}


def count_of(connection: psycopg.Connection[Any], pair: tuple[str, str]) -> int:
    """Count a table's own rows, without those of its children."""
    query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(*pair))
    row = connection.execute(query).fetchone()
    return 0 if row is None else int(row[0])
