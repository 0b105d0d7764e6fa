"""Turns file nodes and counts into what a transaction did to which table, by name where a list knows it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from wal_pipeline.archive.format.relations import RelationKind
from wal_pipeline.archive.recovery.names.relation_names import NamedRelation, RelationNames
from wal_pipeline.commands.find.found import NAMELESS_DATABASE, FoundTransaction, RelationChange, RelationFate
from wal_pipeline.commands.find.options import FindOptionError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.records.assemble import CommittedTransaction
from wal_pipeline.wal.records.endings import RelationKey

FIRST_USER_NODE: Final = 16384  # transam.h: FirstNormalObjectId; file nodes below are the system catalogs' own
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SYSTEM_SCHEMAS: Final = ("pg_catalog", "information_schema")
_FATES: Final = (RelationFate.DROPPED, RelationFate.TRUNCATED, RelationFate.UNCLEAR, RelationFate.REWRITTEN)
_PG_CLASS: Final = 1259  # its oid, and its first file node


def commit_moment(committed_us: int) -> datetime:
    """Return a time of PostgreSQL's (microseconds since 2000-01-01 UTC) as a moment."""
    return _EPOCH + timedelta(microseconds=committed_us)


def microseconds_of(at: datetime) -> int:
    """Return a moment as PostgreSQL counts it: microseconds since 2000-01-01 UTC."""
    return (at - _EPOCH) // timedelta(microseconds=1)


@dataclass(slots=True)
class _TableChange:
    """Adds up what was done to one table, its indexes and its TOAST table."""

    key: RelationKey
    label: str
    database: str | None
    is_index: bool
    is_system: bool
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    wal_bytes: int = 0
    fate: RelationFate | None = None

    def change(self) -> RelationChange:
        return RelationChange(
            database_oid=self.key[0],
            file_node=self.key[1],
            label=self.label,
            inserted=self.inserted,
            updated=self.updated,
            deleted=self.deleted,
            fate=self.fate,
            database=self.database,
            wal_bytes=self.wal_bytes,
            is_index=self.is_index,
        )


@dataclass(slots=True)
class ChangeNaming:
    """Names what is found in the WAL of one cluster."""

    names: RelationNames
    _known: dict[RelationKey, NamedRelation | None] = field(default_factory=dict)
    _counting: dict[RelationKey, bool] = field(default_factory=dict)
    _labels: dict[RelationKey, tuple[int, str]] = field(default_factory=dict)
    _systems: dict[RelationKey, bool] = field(default_factory=dict)

    def of(self, key: RelationKey) -> NamedRelation | None:
        """Return the relation with these files; None where no list knows it."""
        if key not in self._known:
            self._known[key] = self.names.of(*key)
        return self._known[key]

    def counts_rows(self, key: RelationKey) -> bool:
        """Say whether the rows of these files are those of a table that users made."""
        if key not in self._counting:
            named = self.of(key)
            is_own = key[1] >= FIRST_USER_NODE if named is None else named.kind.is_table and not _is_system(named)
            self._counting[key] = is_own
        return self._counting[key]

    def database(self, oid: int) -> str:
        """Return a database's name, or its number in words."""
        return self.names.database(oid) or f"{NAMELESS_DATABASE}{oid}"

    def transaction(self, one: CommittedTransaction, timeline: int) -> FoundTransaction:
        """Return a transaction as a person reads it."""
        at = commit_moment(one.committed_us)
        return FoundTransaction(
            committed_at=at,
            xid=one.xid,
            lsn=Lsn(one.lsn),
            timeline=timeline,
            wal_bytes=one.wal_bytes,
            changes=tuple(self._changes(one)),
            dropped_databases=tuple(self.database(oid) for oid in dict.fromkeys(one.dropped_databases)),
            prepared=one.prepared,
            unseen_begin=one.unseen_begin,
            begin_lsn=Lsn(one.first_lsn) if one.dropped_databases else None,
        )

    def _changes(self, one: CommittedTransaction) -> list[RelationChange]:
        tables: dict[tuple[int, str], _TableChange] = {}
        for key, tally in one.tallies.items():
            if key == (0, 0) or (key in one.made and key in one.removed):  # no block, or made and dropped by itself
                continue
            table = self._table(tables, key)
            table.wal_bytes += tally.wal_bytes
            if self.counts_rows(key):
                table.inserted += tally.inserted
                table.updated += tally.updated
                table.deleted += tally.deleted
        if one.removed:
            self._note_fates(tables, one)
        found = [table.change() for table in tables.values() if not table.is_system]
        seen = [change for change in found if change.rows or change.fate is not None]
        seen.sort(key=lambda change: (change.fate is None, -change.rows, change.label))
        return seen

    def _note_fates(self, tables: dict[tuple[int, str], _TableChange], one: CommittedTransaction) -> None:
        fates = {key: self._fate(key, one) for key in one.removed if key not in one.made}
        with_fate = {self._label(key) for key in fates if not self._is_part(key)}
        for key, fate in fates.items():
            if not self._is_part(key):
                table = self._table(tables, key)
            elif self._label(key) in with_fate:
                continue  # an index goes with its table
            else:
                named = self.of(key)
                label = str(key) if named is None else named.label
                table = tables.setdefault((key[0], label), self._new(key, label, is_index=True))
            known = [one_fate for one_fate in (table.fate, fate) if one_fate is not None]
            table.fate = min(known, key=_FATES.index)

    def _fate(self, key: RelationKey, one: CommittedTransaction) -> RelationFate:
        """Say what became of removed files: a dropped relation's statistics go with it, those of others stay.

        A transient table of VACUUM FULL is dropped too, but the transaction has made it itself.
        """
        others_are_new = self._emptied(key, one)
        named = self.of(key)
        if named is not None:
            gone = (named.database_oid, named.oid) in one.dropped_oids
            return RelationFate.DROPPED if gone else others_are_new
        if key in one.dropped_oids:  # a relation's first files have its own number
            return RelationFate.DROPPED
        others = one.dropped_oids - one.made - set(one.removed) - {self._oid(known) for known in one.removed}
        return RelationFate.UNCLEAR if others else others_are_new

    def _emptied(self, key: RelationKey, one: CommittedTransaction) -> RelationFate:
        """Tell TRUNCATE from the commands that write a relation anew.

        They fill a transient table, which has a row in pg_class for a while, or move the files to another tablespace.
        REINDEX writes to each of its new files.
        """
        is_transient = any(
            tally.inserted for other, tally in one.tallies.items() if other[0] == key[0] and self._is_pg_class(other)
        )
        tallies = (one.tallies.get(made) for made in one.made)
        is_empty = any(tally is None or tally.inserted for tally in tallies)
        if is_transient or one.changes_tablespace or self._is_index(key) or not is_empty:
            return RelationFate.REWRITTEN
        return RelationFate.TRUNCATED

    def _is_pg_class(self, key: RelationKey) -> bool:
        named = self.of(key)
        return (key[1] if named is None else named.oid) == _PG_CLASS

    def _is_index(self, key: RelationKey) -> bool:
        named = self.of(key)
        return named is not None and named.kind in (RelationKind.INDEX, RelationKind.PARTITIONED_INDEX)

    def _oid(self, key: RelationKey) -> RelationKey:
        named = self.of(key)
        return key if named is None else (named.database_oid, named.oid)

    def _is_part(self, key: RelationKey) -> bool:
        named = self.of(key)
        return named is not None and not named.kind.is_table

    def _label(self, key: RelationKey) -> tuple[int, str]:
        if key not in self._labels:
            named = self.of(key)
            self._labels[key] = key[0], f"{key[0]}/{key[1]}" if named is None else named.table
        return self._labels[key]

    def _table(self, tables: dict[tuple[int, str], _TableChange], key: RelationKey) -> _TableChange:
        """Return the table that files belong to, with the file node of its own files where they were touched."""
        place = self._label(key)
        table = tables.get(place)
        if table is None:
            table = tables[place] = self._new(key, place[1])
        elif not self._is_part(key):
            table.key = key
        return table

    def _new(self, key: RelationKey, label: str, *, is_index: bool = False) -> _TableChange:
        if key not in self._systems:
            named = self.of(key)
            self._systems[key] = key[1] < FIRST_USER_NODE if named is None else _is_system(named)
        return _TableChange(key, label, self.names.database(key[0]), is_index, self._systems[key])


def _is_system(named: NamedRelation) -> bool:
    """Say whether a relation is a system catalog, or part of one."""
    is_own = named.kind is not RelationKind.TOAST and named.schema in _SYSTEM_SCHEMAS
    return is_own or any(named.table.startswith(f"{schema}.") for schema in _SYSTEM_SCHEMAS)


@dataclass(frozen=True, slots=True)
class RelationChoice:
    """The files that a search is for; None: all."""

    keys: frozenset[RelationKey] | None = None
    databases: frozenset[int] | None = None
    tables: frozenset[tuple[int, str]] = frozenset()
    database_name: str | None = None

    @property
    def is_all(self) -> bool:
        """Whether no relation and no database was asked for."""
        return self.keys is None and self.databases is None


def choose_relations(naming: ChangeNaming, relation: str | None, database: str | None) -> RelationChoice:
    """Find the files of the relation and the database that a search is for.

    Raises: FindOptionError, which names the nearest names.
    """
    names = naming.names
    databases: frozenset[int] | None = None
    if database is not None:
        databases = frozenset(names.database_oids(database)) or _number(database)
        if not databases:
            raise FindOptionError(f"no list of relations knows a database '{database}'", hint=_known(names.databases))
    if relation is None:
        return RelationChoice(None, databases, database_name=database)
    numbers = _file_node(relation)
    if numbers is not None:
        return RelationChoice(frozenset([numbers]), databases, database_name=database)
    found = names.matching(relation, database=database)
    if not found:
        nearest = names.nearest(relation, database=database)
        where = "" if database is None else f" in database '{database}'"
        hint = f"Nearest: {', '.join(nearest)}." if nearest else _without_names(names)
        raise FindOptionError(f"no list of relations knows a relation '{relation}'{where}", hint=hint)
    tables = frozenset((one.database_oid, one.table) for one in found)
    keys = frozenset((one.database_oid, one.file_node) for one in found)
    return RelationChoice(keys, databases, tables, database)


def _number(text: str) -> frozenset[int]:
    return frozenset([int(text)]) if text.isascii() and text.isdecimal() else frozenset()


def _file_node(text: str) -> RelationKey | None:
    """Read such as ``5/16384``."""
    database, _, node = text.partition("/")
    if all(part.isascii() and part.isdecimal() for part in (database, node)):
        return int(database), int(node)
    return None


def _known(databases: Iterable[str]) -> str:
    listed = ", ".join(databases)
    return (
        f"The lists have {listed}." if listed else "Give the number of its folder in 'base'; no list is archived yet."
    )


def _without_names(names: RelationNames) -> str | None:
    if not names.is_empty:
        return "'wal-pipeline find' without --relation shows what was changed."
    return "No list of relations is archived yet and no server answers: give its numbers, such as 5/16384."
