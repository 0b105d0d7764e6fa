"""Looks up the wanted tables in the kept lists of relations: in which database they were, and from when to when."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wal_pipeline.archive.format.relations import RelationList
from wal_pipeline.commands.rescue.wanted import WantedTable, nearest_names
from wal_pipeline.errors import RestoreError
from wal_pipeline.text import moment_utc

_SYSTEM: Final = ("pg_catalog", "information_schema", "pg_toast")


@dataclass(frozen=True, slots=True)
class KnownTables:
    """The lists of relations of a cluster, the oldest first; none where no list can be read."""

    lists: tuple[RelationList, ...]

    def databases(self, wanted: Sequence[WantedTable], database: str | None) -> tuple[str, ...]:
        """Return the databases that had all of the wanted tables, each in some list; none where nobody can tell.

        A named ``database`` is the only one, if any list knows it: a table that lived for less than a day may be in
        none. Raises: RestoreError for a table that no list knows, where no database was named.
        """
        if not self.lists:
            return ()
        if database is not None:
            return (database,) if any(database in _names(one).values() for one in self.lists) else ()
        found: set[str] | None = None
        for one in wanted:
            had = {name for listed in self.lists for name in _having(one, listed)}
            if not had:
                raise self._unknown(one)
            found = had if found is None else found & had
        return tuple(sorted(found or ()))

    def notes(self, wanted: Sequence[WantedTable], database: str | None) -> tuple[str, ...]:
        """Say which of the tables no list knows, though their database was named."""
        if not self.lists or database is None:
            return ()
        unknown = (one for one in wanted if not any(database in _having(one, listed) for listed in self.lists))
        return tuple(f"no list of relations knows '{one.text}' in database '{database}'" for one in unknown)

    def lifetime(self, wanted: WantedTable, database: str | None) -> str | None:
        """Say from which list to which a table was there; None where no list has it."""
        if wanted.files is not None:
            return None
        there = [
            bool(found) if database is None else database in found
            for found in (_having(wanted, listed) for listed in self.lists)
        ]
        if not any(there):
            return None
        first, last = there.index(True), len(there) - 1 - there[::-1].index(True)
        words = f"By the lists of relations it was there from {self._at(first)} to {self._at(last)}"
        if first > 0:
            words += f"; at {self._at(first - 1)} not yet"
        return f"{words}; at {self._at(last + 1)} no more." if last + 1 < len(there) else f"{words}."

    def _at(self, index: int) -> str:
        return moment_utc(self.lists[index].taken_at)

    def _unknown(self, wanted: WantedTable) -> RestoreError:
        names = {
            (one.schema, one.name)
            for listed in self.lists
            for one in listed.relations
            if one.kind.is_table and one.schema not in _SYSTEM
        }
        close = nearest_names(wanted, names)
        nearest = f"The nearest names: {', '.join(close)}. " if close else ""
        return RestoreError(
            f"no list of relations knows a table '{wanted.text}'",
            hint=f"{nearest}A list is kept with each base backup and once a day: name the database of a table that "
            "lived for less, with --database.",
        )


def _names(listed: RelationList) -> dict[int, str]:
    return {one.oid: one.name for one in listed.databases}


def _having(wanted: WantedTable, listed: RelationList) -> set[str]:
    """Return the databases that have the table, by one list. Its files' numbers name the database."""
    names = _names(listed)
    if wanted.files is not None:
        return {name for oid, name in names.items() if oid == wanted.files[0]}
    tables: dict[str, set[tuple[str, str]]] = {}
    for one in listed.relations:
        if one.name in wanted.names and one.database_oid in names and one.kind.is_table:
            tables.setdefault(names[one.database_oid], set()).add((one.schema, one.name))
    return {database for database, known in tables.items() if wanted.among(known)}
