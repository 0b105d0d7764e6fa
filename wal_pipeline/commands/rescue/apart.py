"""Sets the chosen tables apart on the scratch server: into a schema of their own, without ties to what stays behind.

The scratch server is ours, and is removed. So its tables are moved with PostgreSQL's own statements before they are
dumped, and nobody has to change the text of a dump.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from wal_pipeline.archive.recovery.names.identifiers import quoted_name
from wal_pipeline.commands.rescue.needs import Need, NeedKind
from wal_pipeline.commands.rescue.tables import ChosenTables, FoundTable
from wal_pipeline.errors import RestoreError
from wal_pipeline.text import counted

_EVENT_TRIGGERS: Final = "SELECT evtname FROM pg_event_trigger"
_PUBLICATIONS: Final = "SELECT pubname FROM pg_publication"
_FOREIGN_KEYS: Final = """
SELECT c.conrelid::bigint, c.conname, n.nspname, f.relname
FROM pg_constraint c JOIN pg_class f ON f.oid = c.confrelid JOIN pg_namespace n ON n.oid = f.relnamespace
WHERE c.contype = 'f' AND c.conparentid = 0 AND c.conrelid = ANY (%s::oid[]) AND c.confrelid <> ALL (%s::oid[])
ORDER BY 1, 2
"""
_TRIGGERS: Final = """
SELECT tgrelid::bigint, tgname FROM pg_trigger
WHERE NOT tgisinternal AND tgparentid = 0 AND tgrelid = ANY (%s::oid[]) ORDER BY 1, 2
"""
_RULES: Final = "SELECT ev_class::bigint, rulename FROM pg_rewrite WHERE ev_class = ANY (%s::oid[]) ORDER BY 1, 2"
_POLICIES: Final = "SELECT polrelid::bigint, polname FROM pg_policy WHERE polrelid = ANY (%s::oid[]) ORDER BY 1, 2"
_GUARDED: Final = """
SELECT oid::bigint FROM pg_class WHERE oid = ANY (%s::oid[]) AND (relrowsecurity OR relforcerowsecurity)
"""
_STATISTICS: Final = "SELECT count(*) FROM pg_statistic_ext WHERE stxrelid = ANY (%s::oid[])"
_IS_PARTITION: Final = "SELECT relispartition FROM pg_class WHERE oid = %s"
_NAME: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s
"""
_TYPE: Final = (
    "SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = %s"
)
_DEFAULT: Final = """
SELECT n.nspname, c.relname, a.attname, 'the default of column ' || quote_ident(a.attname)
FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE d.oid = %s AND a.attgenerated = ''
"""
_EXPRESSION: Final = """
SELECT n.nspname, c.relname, a.attname, 'the expression of the generated column ' || quote_ident(a.attname)
FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE d.oid = %s AND a.attgenerated <> '' AND a.attinhcount = 0
"""
_CONSTRAINT: Final = """
SELECT n.nspname, c.relname, o.conname, 'the constraint ' || quote_ident(o.conname)
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE o.oid = %s AND o.coninhcount = 0
"""
_INDEX_CONSTRAINT: Final = """
SELECT n.nspname, c.relname, o.conname, 'the constraint ' || quote_ident(o.conname)
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE o.conindid = %s AND o.conrelid = c.oid AND o.contype IN ('p', 'u', 'x') AND o.coninhcount = 0
"""
_INDEX: Final = """
SELECT n.nspname, c.relname, c.relname, 'the index'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %s AND c.relkind IN ('i', 'I') AND NOT c.relispartition
"""
_DROP_CONSTRAINT: Final = "ALTER TABLE {} DROP CONSTRAINT {}"
# By the catalog of the part: how it is found, and how it is dropped. The first that is found ends the part.
_PARTS: Final[Mapping[str, tuple[tuple[LiteralString, LiteralString], ...]]] = {
    "pg_attrdef": (
        (_DEFAULT, "ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT"),
        (_EXPRESSION, "ALTER TABLE {} ALTER COLUMN {} DROP EXPRESSION"),
    ),
    "pg_constraint": ((_CONSTRAINT, _DROP_CONSTRAINT),),
    "pg_class": ((_INDEX_CONSTRAINT, _DROP_CONSTRAINT), (_INDEX, "DROP INDEX {}")),
}
_SCHEMA: Final = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
_ASIDE: Final = "wal_pipeline_was_here"


class ScratchTables:
    """The chosen tables in one database of the scratch server. ``notes`` say what was left out, for a person."""

    def __init__(self, connection: psycopg.Connection[Any], chosen: ChosenTables) -> None:
        self._connection = connection
        self._chosen = chosen
        self._by_oid = {one.oid: one for one in chosen.all}
        self.notes: list[str] = []

    def silence(self) -> None:
        """Switch off what would run, or refuse, because of the changes that follow: event triggers, publications."""
        for (name,) in self._connection.execute(_EVENT_TRIGGERS).fetchall():
            self._do("ALTER EVENT TRIGGER {} DISABLE", name)
        for (name,) in self._connection.execute(_PUBLICATIONS).fetchall():
            self._do("DROP PUBLICATION {}", name)

    def detach(self) -> None:
        """Make each chosen table stand for itself whose parent does not come."""
        for table in self._chosen.all:
            for parent in table.parents:
                if parent not in self._by_oid:
                    self._detach(table, parent)

    def _detach(self, table: FoundTable, parent_oid: int) -> None:
        parent = self._one(_NAME, parent_oid)
        found = self._connection.execute(_IS_PARTITION, (table.oid,)).fetchone()
        if found is not None and found[0]:
            self._do("ALTER TABLE {} DETACH PARTITION {}", parent, table.pair)
            self.notes.append(
                f"'{table.shown}' was a partition of '{quoted_name(*parent)}', and comes as a table of its own"
            )
        else:
            self._do("ALTER TABLE {} NO INHERIT {}", table.pair, parent)
            self.notes.append(
                f"'{table.shown}' inherited from '{quoted_name(*parent)}', and comes as a table of its own"
            )

    def cut_ties(self) -> None:
        """Drop what would act on other tables, or be acted on by other roles, beside the living ones."""
        oids = self._chosen.oids
        for oid, name, schema, table in self._connection.execute(_FOREIGN_KEYS, (oids, oids)).fetchall():
            self._do("ALTER TABLE {} DROP CONSTRAINT {}", self._pair(oid), name)
            self._left_out(f"the foreign key '{name}' to '{quoted_name(schema, table)}'", oid)
        for query, statement, words in (
            (_TRIGGERS, "DROP TRIGGER {} ON {}", "the trigger"),
            (_RULES, "DROP RULE {} ON {}", "the rule"),
            (_POLICIES, "DROP POLICY {} ON {}", "the row security policy"),
        ):
            for oid, name in self._connection.execute(query, (oids,)).fetchall():
                self._do(statement, name, self._pair(oid))
                self._left_out(f"{words} '{name}'", oid)
        for (oid,) in self._connection.execute(_GUARDED, (oids,)).fetchall():
            self._do("ALTER TABLE {} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY", self._pair(oid))
        row = self._connection.execute(_STATISTICS, (oids,)).fetchone()
        if row is not None and row[0]:
            self.notes.append(f"left out: {counted(int(row[0]), 'extended statistics object')}")

    def move(self, schema: str, along: Sequence[Need]) -> None:
        """Move the tables, and the needs that come along, into a new schema; an old one of that name goes aside.

        Indexes and owned sequences follow their tables.
        """
        if self._connection.execute(_SCHEMA, (schema,)).fetchone() is not None:
            self._do("ALTER SCHEMA {} RENAME TO {}", schema, _ASIDE)
        self._do("CREATE SCHEMA {}", schema)
        for table in self._chosen.all:
            self._do("ALTER TABLE {} SET SCHEMA {}", self._pair_now(table.oid), schema)
        for need in along:
            if need.kind is NeedKind.SEQUENCE:
                self._do("ALTER SEQUENCE {} OWNED BY NONE", self._pair_now(need.oid))
                self._do("ALTER SEQUENCE {} SET SCHEMA {}", self._pair_now(need.oid), schema)
            else:
                self._do("ALTER TYPE {} SET SCHEMA {}", self._one(_TYPE, need.oid), schema)

    def drop_parts(self, lacking: Sequence[Need]) -> None:
        """Drop the defaults, constraints and indexes that need what the target lacks."""
        for (catalog, oid), needs in groupby(sorted(lacking, key=lambda one: one.part), key=lambda one: one.part):
            words = ", ".join(dict.fromkeys(need.described for need in needs))
            for query, statement in _PARTS[catalog]:
                row = self._connection.execute(query, (oid,)).fetchone()
                if row is not None:
                    schema, table, name, what = row
                    self._do(statement, *((schema, table), name)[: statement.count("{}")])
                    self.notes.append(f"left out: {what} of '{quoted_name(schema, table)}': the target lacks {words}")

    def _pair(self, oid: int) -> tuple[str, str]:
        return self._by_oid[oid].pair

    def _pair_now(self, oid: int) -> tuple[str, str]:
        return self._one(_NAME, oid)

    def _one(self, query: LiteralString, oid: int) -> tuple[str, str]:
        row = self._connection.execute(query, (oid,)).fetchone()
        if row is None:
            raise RestoreError(f"the object with oid {oid} is not on the scratch server any more")
        return str(row[0]), str(row[1])

    def _left_out(self, what: str, oid: int) -> None:
        self.notes.append(f"left out: {what} of '{self._by_oid[oid].shown}'")

    def _do(self, statement: LiteralString, *names: str | tuple[str, str]) -> None:
        given = (sql.Identifier(name) if isinstance(name, str) else sql.Identifier(*name) for name in names)
        self._connection.execute(sql.SQL(statement).format(*given))
