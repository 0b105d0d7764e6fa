"""Finds the wanted tables on the scratch server, with their partitions, and refuses those without rows to bring."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from wal_pipeline.archive.recovery.names.identifiers import quoted_name
from wal_pipeline.commands.rescue.wanted import TableNotFoundError, WantedTable, choose_one
from wal_pipeline.errors import RestoreError

FIRST_USER_OID: Final = 16384  # transam.h: FirstNormalObjectId
# Views, sequences and so on are found too, to say why they are refused and not that they are not there.
_NAMED: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
# Of an index its table, and of a TOAST table the one whose values it holds.
_OF_FILES: Final = """
WITH touched (oid) AS (
  SELECT coalesce(i.indrelid, c.oid) FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
  WHERE pg_relation_filenode(c.oid)::bigint = %s
    AND (SELECT oid FROM pg_database WHERE datname = current_database())::bigint = %s
)
SELECT n.nspname, c.relname FROM touched t
JOIN pg_class c ON c.relkind <> 't' AND (c.oid = t.oid OR c.reltoastrelid = t.oid)
JOIN pg_namespace n ON n.oid = c.relnamespace
"""
_TREE: Final = """
WITH RECURSIVE tree (oid) AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
  UNION
  SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid
)
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
  (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
   WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
     AND d.refclassid = 'pg_extension'::regclass),
  ARRAY(SELECT i.inhparent::bigint FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno)
FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY n.nspname, c.relname
"""
_EVERY: Final = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
  ARRAY(SELECT i.inhparent::bigint FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%%'
  AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT 1 FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
"""
_BYTES: Final = "SELECT coalesce(sum(pg_table_size(oid)), 0)::bigint FROM unnest(%s::oid[]) AS oid"
_LARGE_OBJECTS: Final = """
SELECT a.attrelid::bigint, a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = ANY (%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
  AND (t.oid = 'oid'::regtype OR t.typname = 'lo') AND EXISTS (SELECT 1 FROM pg_largeobject_metadata)
"""
_REFUSED_KINDS: Final = {
    "v": ("a view, which has no rows of its own", "Name the tables that it reads."),
    "m": (
        "a materialized view, whose rows come from other tables",
        "Name the tables that it reads, and make it anew from them.",
    ),
    "f": ("a foreign table, whose rows lie on another server", "They are in no base backup of this cluster."),
    "S": ("a sequence", "A table's sequences come with the table: name the table."),
}
_PLAIN, _PARTITIONED, _UNLOGGED = "r", "p", "u"


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table on the scratch server. ``parents`` are the oids of those that it is a partition or a child of."""

    oid: int
    schema: str
    name: str
    kind: str
    parents: tuple[int, ...] = ()

    @property
    def pair(self) -> tuple[str, str]:
        """Its schema and name."""
        return self.schema, self.name

    @property
    def shown(self) -> str:
        """Its name as a person writes it."""
        return quoted_name(*self.pair)

    @property
    def has_rows(self) -> bool:
        """Whether it holds rows itself: a partitioned table has them in its partitions."""
        return self.kind == _PLAIN


@dataclass(frozen=True, slots=True)
class ChosenTables:
    """The tables that a rescue brings. ``wanted`` are those that were named, ``all`` also have their partitions."""

    wanted: tuple[FoundTable, ...]
    all: tuple[FoundTable, ...]
    size_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def oids(self) -> list[int]:
        """The oids of all."""
        return [one.oid for one in self.all]

    def below(self, table: FoundTable) -> tuple[FoundTable, ...]:
        """Return a table with all its partitions and children."""
        found = {table.oid}
        while True:
            more = {one.oid for one in self.all if one.oid not in found and found.intersection(one.parents)}
            if not more:
                return tuple(one for one in self.all if one.oid in found)
            found |= more


def choose_tables(connection: psycopg.Connection[Any], wanted: Sequence[WantedTable], database: str) -> ChosenTables:
    """Find the wanted tables in the connection's database, with their partitions and children.

    Raises: TableNotFoundError, RestoreError for what is no table, or one without rows after a recovery.
    """
    names = [(str(schema), str(name)) for schema, name in connection.execute(_NAMED).fetchall()]
    pairs = list(dict.fromkeys(_pair_of(connection, one, names, database) for one in wanted))
    rows = connection.execute(_TREE, ([schema for schema, _ in pairs], [name for _, name in pairs])).fetchall()
    found = []
    for oid, schema, name, kind, persistence, extension, parents in rows:
        _refuse(quoted_name(schema, name), kind, persistence, extension)
        found.append(FoundTable(oid, schema, name, kind, tuple(parents)))
    oids = [one.oid for one in found]
    row = connection.execute(_BYTES, (oids,)).fetchone()
    chosen = tuple(next(one for one in found if one.pair == pair) for pair in pairs)
    return ChosenTables(chosen, tuple(found), 0 if row is None else int(row[0]), _large_objects(connection, found))


def _pair_of(
    connection: psycopg.Connection[Any], wanted: WantedTable, names: Sequence[tuple[str, str]], database: str
) -> tuple[str, str]:
    """Return the schema and name of a wanted table. Raises: as ``choose_one``."""
    if wanted.files is None:
        return choose_one(wanted, names, database)
    row = connection.execute(_OF_FILES, (wanted.files[1], wanted.files[0])).fetchone()
    if row is None:
        raise TableNotFoundError(f"database '{database}' had no table with the files '{wanted.text}' at that moment")
    return str(row[0]), str(row[1])


def all_tables(connection: psycopg.Connection[Any]) -> ChosenTables:
    """Return every table of the connection's database that a dump of all of it holds, but for those of extensions.

    Unlogged tables are among the notes: they are empty after a recovery.
    """
    found, notes = [], []
    for oid, schema, name, kind, persistence, parents in connection.execute(_EVERY).fetchall():
        found.append(FoundTable(oid, schema, name, kind, tuple(parents)))
        if persistence == _UNLOGGED:
            notes.append(f"'{quoted_name(schema, name)}' is an unlogged table: it is empty after a recovery")
    row = connection.execute(_BYTES, ([one.oid for one in found],)).fetchone()
    return ChosenTables(_roots(found), tuple(found), 0 if row is None else int(row[0]), tuple(notes))


def _roots(found: Sequence[FoundTable]) -> tuple[FoundTable, ...]:
    oids = {one.oid for one in found}
    return tuple(one for one in found if not oids.intersection(one.parents))


def _refuse(name: str, kind: str, persistence: str, extension: str | None) -> None:
    if kind in _REFUSED_KINDS:
        words, hint = _REFUSED_KINDS[kind]
        raise RestoreError(f"'{name}' is {words}", hint=hint)
    if persistence == _UNLOGGED:
        raise RestoreError(
            f"'{name}' is an unlogged table: it is not in the WAL, and empty after every recovery",
            hint="No archive has its rows. Where only a partition is unlogged, name the other partitions.",
        )
    if extension is not None:
        raise RestoreError(
            f"'{name}' belongs to the extension '{extension}', whose tables are not dumped",
            hint="CREATE EXTENSION makes it; --whole-database --output dumps the rows that the extension marks.",
        )


def _large_objects(connection: psycopg.Connection[Any], found: Sequence[FoundTable]) -> tuple[str, ...]:
    by_oid = {one.oid: one for one in found}
    rows = connection.execute(_LARGE_OBJECTS, (list(by_oid),)).fetchall()
    return tuple(
        f"column '{column}' of '{by_oid[oid].shown}' may hold numbers of large objects: the numbers come, the large "
        "objects do not (--whole-database --output has them)"
        for oid, column in rows
    )
