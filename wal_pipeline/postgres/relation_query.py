"""Asks the server for the relations of all its databases: names, kinds and file nodes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg

from wal_pipeline.archive.format.relations import ListedDatabase, ListedRelation, RelationKind, RelationList
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.server_facts import ServerFacts, read_system_identifier
from wal_pipeline.postgres.session import open_session

DATABASE_SECONDS: Final = 120
_ALL_SECONDS: Final = 900.0
_DATABASES: Final = """
SELECT oid::bigint, datname, encode(convert_to(datname::text, getdatabaseencoding()), 'hex'),
       datistemplate, datallowconn, dattablespace::bigint, pg_encoding_to_char(encoding)
FROM pg_database ORDER BY oid
"""
# No joins: the planner may know nothing of a catalog that grew, and choose a plan that takes hours.
_SCHEMAS: Final = "SELECT oid::bigint, nspname FROM pg_namespace"
_INDEXES: Final = "SELECT indexrelid::bigint, indrelid::bigint FROM pg_index"
# A mapped relation has no file node in pg_class. The function does not keep to the snapshot, so it is asked for these.
_RELATIONS: Final = """
SELECT oid::bigint, CASE WHEN relfilenode <> 0 THEN relfilenode ELSE pg_relation_filenode(oid) END::bigint,
       reltablespace::bigint, relnamespace::bigint, relname, relkind::text, relisshared, reltoastrelid::bigint
FROM pg_class
WHERE relkind IN ('r', 'p', 'i', 'I', 't', 'S', 'm') AND relpersistence <> 't'
ORDER BY oid
"""
_KINDS: Final = {
    "r": RelationKind.TABLE,
    "p": RelationKind.PARTITIONED_TABLE,
    "i": RelationKind.INDEX,
    "I": RelationKind.PARTITIONED_INDEX,
    "t": RelationKind.TOAST,
    "S": RelationKind.SEQUENCE,
    "m": RelationKind.MATERIALIZED_VIEW,
}
_AS_THEY_ARE: Final = ("UTF8", "SQL_ASCII")


@dataclass(frozen=True, slots=True)
class _Database:
    listed: ListedDatabase
    spelling: str | None
    encoding: str


class RelationServer(PostgresServer):
    """The server whose relations are listed. A standby answers too."""

    def relation_list(self, *, most_seconds: float = _ALL_SECONDS) -> RelationList:
        """Return the relations of all databases. One that cannot be read is listed with the reason.

        Each database is read in one transaction of its own. Databases of which the turn comes after ``most_seconds``
        are not read.

        Raises: PostgresError where the server does not say which databases it has.
        """
        facts, until = self.facts(), time.monotonic() + most_seconds
        with self._session("reading the databases") as connection:
            found = [_database(row) for row in connection.execute(_DATABASES).fetchall()]
        databases: list[ListedDatabase] = []
        relations: list[ListedRelation] = []
        is_shared_known = False
        for one in found:
            rows, reason = self._read(one, facts, until, most_seconds)
            databases.append(replace(one.listed, unread=reason))
            relations += (row for row in rows if row.database_oid or not is_shared_known)
            is_shared_known = is_shared_known or reason is None
        return RelationList(
            taken_at=facts.server_at.replace(microsecond=0),
            lsn=facts.wal_lsn,
            timeline=facts.timeline,
            server_major=facts.major_version,
            system_identifier=facts.system_identifier,
            databases=tuple(databases),
            relations=tuple(sorted(relations, key=lambda row: row.database_oid)),  # shared ones first
        )

    def _read(
        self, one: _Database, facts: ServerFacts, until: float, most_seconds: float
    ) -> tuple[list[ListedRelation], str | None]:
        """Return a database's relations, or why they could not be read."""
        if not one.listed.allows_connections:
            return [], "it does not allow connections"
        if one.spelling is None:
            return [], "its name is not in UTF-8, and no connection can name it"
        if time.monotonic() >= until:
            return [], f"the {most_seconds:.0f} s for all databases were over"
        parameters = {**self._parameters, "dbname": one.spelling}
        try:
            return self._rows_of(parameters, one, facts, one.encoding not in _AS_THEY_ARE), None
        except PostgresError as error:
            return [], error.message

    def _rows_of(
        self, parameters: Mapping[str, Any], one: _Database, facts: ServerFacts, converted: bool
    ) -> list[ListedRelation]:
        """Read one database; ``converted``: the server turns names into UTF-8, or else sends them as they are."""

        def ask(connection: psycopg.Connection[Any]) -> list[ListedRelation] | None:
            try:
                return _read_relations(connection, one.listed.oid, facts.system_identifier, converted=converted)
            except (psycopg.errors.UntranslatableCharacter, psycopg.errors.CharacterNotInRepertoire):
                if not converted:
                    raise
                return None  # a name is none in its database's encoding

        purpose = f"reading the relations of database '{one.listed.name}'"
        with open_session(
            parameters,
            purpose,
            limit_seconds=DATABASE_SECONDS,
            connect_timeout_seconds=self._connect_timeout_seconds,
        ) as connection:
            found = ask(connection)
        return self._rows_of(parameters, one, facts, False) if found is None else found


def _database(row: tuple[Any, ...]) -> _Database:
    oid, name, name_hex, is_template, allows_connections, space, encoding = row
    listed = ListedDatabase(oid, name, is_template, allows_connections, space)
    try:
        spelling: str | None = bytes.fromhex(name_hex).decode()
    except UnicodeDecodeError:
        spelling = None
    return _Database(listed, spelling, encoding)


def _read_relations(
    connection: psycopg.Connection[Any], database_oid: int, system_identifier: int, *, converted: bool
) -> list[ListedRelation]:
    """Read one database in one snapshot. Raises: PostgresError where another server answers; psycopg.Error."""
    found = read_system_identifier(connection)
    if found != system_identifier:
        raise PostgresError(f"another server answered: system identifier {found}, expected {system_identifier}")
    if converted:
        connection.execute("SET client_encoding = 'UTF8'")
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    schemas, tables, rows = (connection.execute(sql.encode()).fetchall() for sql in (_SCHEMAS, _INDEXES, _RELATIONS))
    connection.execute("COMMIT")
    names, table_of = dict(schemas), dict(tables)
    owners = {toast: oid for oid, *_, toast in rows if toast}
    return [
        ListedRelation(
            0 if shared else database_oid,
            oid,
            file_node or 0,
            space,
            names.get(schema, ""),
            name,
            _KINDS[kind],
            _owner(oid, kind, table_of, owners),
        )
        for oid, file_node, space, schema, name, kind, shared, _ in rows
    ]


def _owner(oid: int, kind: str, tables: Mapping[int, int], owners: Mapping[int, int]) -> int | None:
    """Return the table of an index, the owner of a TOAST table, and the owner of the TOAST table of its index."""
    if kind == "t":
        return owners.get(oid)
    table = tables.get(oid) if kind in ("i", "I") else None
    return None if table is None else owners.get(table, table)
