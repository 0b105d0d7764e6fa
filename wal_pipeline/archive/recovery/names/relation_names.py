"""Finds the names of relations by their numbers, and the numbers by their names, in the lists of many days."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Final, Generic, TypeVar

from wal_pipeline.archive.format.relations import ListedDatabase, ListedRelation, RelationKind, RelationList
from wal_pipeline.archive.recovery.names.identifiers import parse_identifiers, quoted_name

_NEAREST: Final = 3
_CLOSE: Final = 0.7
_PUBLIC: Final = "public"
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class NamedRelation:
    """A relation by its name. ``database`` is empty where all databases share it.

    ``table`` is the label of the table to which an index or a TOAST table belongs, and its own where it is none.
    """

    database: str
    schema: str
    name: str
    kind: RelationKind
    oid: int
    file_node: int
    table: str
    database_oid: int

    @property
    def label(self) -> str:
        """The name with its schema, as PostgreSQL reads it: in quotes where it needs them."""
        return quoted_name(self.schema, self.name)


@dataclass(slots=True)
class _Past(Generic[_Value]):
    """The values that one thing had, each with the moment of the first list that says so."""

    moments: list[datetime] = field(default_factory=list)
    values: list[_Value] = field(default_factory=list)

    def add(self, at: datetime, value: _Value) -> None:
        if not self.values or self.values[-1] != value:
            self.moments.append(at)
            self.values.append(value)

    def at(self, moment: datetime | None) -> _Value:
        """Return the value of the newest list before a moment, or else of the oldest one after it."""
        last = len(self.values) if moment is None else bisect_right(self.moments, moment)
        return self.values[max(last - 1, 0)]


class RelationNames:
    """The names of one cluster's relations, from lists that were taken at several moments, in any order."""

    def __init__(self, lists: Iterable[RelationList]) -> None:
        self._by_node: dict[tuple[int, int], _Past[ListedRelation]] = {}
        self._by_oid: dict[tuple[int, int], _Past[ListedRelation]] = {}
        self._databases: dict[int, _Past[ListedDatabase]] = {}
        self._names: dict[str, _Past[int]] = {}
        for one in sorted(lists, key=lambda one: one.taken_at):
            self._add(one)

    def _add(self, one: RelationList) -> None:
        at = one.taken_at
        for database in one.databases:
            self._databases.setdefault(database.oid, _Past()).add(at, database)
            self._names.setdefault(database.name, _Past()).add(at, database.oid)
        for relation in one.relations:
            key = relation.database_oid, relation.oid
            past = self._by_oid.get(key)
            if past is not None and past.values[-1] is relation:  # lists that were read together share what stayed
                continue
            if past is None:
                past = self._by_oid[key] = _Past()
            past.add(at, relation)
            if relation.file_node:
                node = relation.database_oid, relation.file_node
                self._by_node.setdefault(node, _Past()).add(at, relation)

    @property
    def is_empty(self) -> bool:
        """Whether no list was given."""
        return not self._databases

    @property
    def databases(self) -> tuple[str, ...]:
        """The names of all databases of the lists, in order."""
        return tuple(sorted(self._names))

    def of(self, database_oid: int, file_node: int, *, at: datetime | None = None) -> NamedRelation | None:
        """Return the relation with a file node, as the newest list taken up to ``at`` has it that knows the file node.

        Where only later lists know it: as the oldest of those does. Without ``at``: as the newest list does.
        ``database_oid`` 0 is for relations that all databases share.
        """
        past = self._by_node.get((database_oid, file_node))
        return None if past is None else self._named(past.at(at), at)

    def database(self, oid: int, *, at: datetime | None = None) -> str | None:
        """Return a database's name, chosen among the lists as ``of`` does."""
        past = self._databases.get(oid)
        return None if past is None else past.at(at).name

    def database_oid(self, name: str) -> int | None:
        """Return the OID of the newest database of that name."""
        past = self._names.get(name)
        return None if past is None else past.values[-1]

    def database_oids(self, name: str) -> tuple[int, ...]:
        """Return the OIDs of all databases that had a name: one that was dropped and made again has another OID."""
        past = self._names.get(name)
        return () if past is None else tuple(dict.fromkeys(past.values))

    def matching(self, text: str, *, database: str | None = None) -> tuple[NamedRelation, ...]:
        """Return the relations that had a name in any list, each with all file nodes that it ever had.

        ``text`` is ``schema.table`` or ``table``, in quotes where PostgreSQL needs them; a name that is spelt exactly
        so counts also without. ``database`` is the only one to look in. Schema ``public`` comes first.
        """
        within = self._within(database)
        for schema, name in parse_identifiers(text):
            found = {
                key
                for key, past in self._by_oid.items()
                if (within is None or key[0] in within)
                and any(one.name == name and schema in (None, one.schema) for one in past.values)
            }
            if found:
                return self._file_nodes(found)
        return ()

    def nearest(self, text: str, *, database: str | None = None) -> tuple[str, ...]:
        """Return the names that are closest to one that no list has, the closest first, for an error message."""
        within, asked = self._within(database), list(dict.fromkeys(name.lower() for _, name in parse_identifiers(text)))
        shown: dict[str, dict[str, None]] = {}
        for one in self._tables():
            spelling = one.name.lower()
            if within is None or one.database_oid in within or spelling in asked:  # so spelt in another database
                shown.setdefault(spelling, {})[self._told(one, database)] = None
        close = [one for name in asked for one in get_close_matches(name, shown, n=_NEAREST, cutoff=_CLOSE)]
        return tuple(dict.fromkeys(label for one in close for label in shown[one]))[:_NEAREST]

    def _within(self, database: str | None) -> frozenset[int] | None:
        return None if database is None else frozenset(self.database_oids(database))

    def _tables(self) -> Iterator[ListedRelation]:
        """Yield the relations that stand for themselves, under all the names that they had, without the system's."""
        for past in self._by_oid.values():
            for one in past.values:
                if one.kind.is_table and one.schema not in ("pg_catalog", "information_schema"):
                    yield one

    def _told(self, relation: ListedRelation, database: str | None) -> str:
        label = quoted_name(relation.schema, relation.name)
        name = self.database(relation.database_oid)
        return label if name is None or name == database else f"{label} (in database '{name}')"

    def _file_nodes(self, keys: Iterable[tuple[int, int]]) -> tuple[NamedRelation, ...]:
        found: dict[tuple[int, int, int], NamedRelation] = {}
        for key in keys:
            past = self._by_oid[key]
            for at, one in zip(past.moments, past.values, strict=True):
                found[*key, one.file_node] = self._named(one, at)
        return tuple(sorted(found.values(), key=_public_first))

    def _named(self, relation: ListedRelation, at: datetime | None) -> NamedRelation:
        owner = relation
        if relation.table_oid is not None:
            past = self._by_oid.get((relation.database_oid, relation.table_oid))
            owner = relation if past is None else past.at(at)
        return NamedRelation(
            database=self.database(relation.database_oid, at=at) or "",
            schema=relation.schema,
            name=relation.name,
            kind=relation.kind,
            oid=relation.oid,
            file_node=relation.file_node,
            table=quoted_name(owner.schema, owner.name),
            database_oid=relation.database_oid,
        )


def _public_first(one: NamedRelation) -> tuple[object, ...]:
    return one.schema != _PUBLIC, one.database, one.schema, one.name, one.oid, one.file_node
