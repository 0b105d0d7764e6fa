"""Describes a list of the relations of a cluster: which file node is which table, index or sequence.

WAL and the data directory know relations by numbers only. ``relations/<moment>.json<codec>[.age]`` says what they were
called at a moment. It is JSON with one relation a line, so that ``zstd -dc … | grep '"orders"'`` finds one; a relation
is an array, whose fields ``columns`` names. The relations stand with their database; those that all databases share
stand in ``shared_relations``. Names are as the server has them, without quotes; a byte that is no text of the
database's encoding is written ``\\xNN``. Left out are temporary relations, views and foreign tables: they have no WAL.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NoReturn, Self

from wal_pipeline.archive.format.words import typed_fields
from wal_pipeline.errors import RelationListError
from wal_pipeline.wal.lsn import InvalidLsnError, Lsn

RELATIONS_FORMAT: Final = "wal-pipeline relations"
MAX_LIST_BYTES: Final = 1 << 30
_VERSION: Final = 1
_COLUMNS: Final = ("oid", "file_node", "tablespace_oid", "schema", "name", "kind", "table_oid")
_MOST: Final = 0xFFFFFFFF


class RelationKind(StrEnum):
    """The kinds of relations that have files, or whose parts have. The value is the word in the list."""

    TABLE = "table"
    PARTITIONED_TABLE = "partitioned table"
    INDEX = "index"
    PARTITIONED_INDEX = "partitioned index"
    TOAST = "TOAST table"
    SEQUENCE = "sequence"
    MATERIALIZED_VIEW = "materialized view"

    @property
    def is_table(self) -> bool:
        """Whether it stands for itself: an index and a TOAST table belong to another relation."""
        return self not in (RelationKind.INDEX, RelationKind.PARTITIONED_INDEX, RelationKind.TOAST)


_KINDS: Final = {kind.value: kind for kind in RelationKind}


@dataclass(frozen=True, slots=True)
class ListedDatabase:
    """One database. ``unread`` says why its relations could not be listed; None where they were."""

    oid: int
    name: str
    is_template: bool
    allows_connections: bool
    tablespace_oid: int
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class ListedRelation:
    """One relation.

    ``database_oid`` is 0 for one that all databases share. ``file_node`` is ``pg_relation_filenode``'s, which knows
    mapped relations too; 0 where it has no file, as a partitioned table. ``tablespace_oid`` 0 is the database's own.
    ``table_oid`` is the table of an index, the owner of a TOAST table, and the owner of the TOAST table of its index;
    None where it stands for itself.
    """

    database_oid: int
    oid: int
    file_node: int
    tablespace_oid: int
    schema: str
    name: str
    kind: RelationKind
    table_oid: int | None = None


KnownRelations = dict[tuple[object, ...], ListedRelation]
"""The relations of the lists that were read so far, by their rows."""


@dataclass(frozen=True, slots=True)
class RelationList:
    """The relations of a cluster at a moment.

    ``taken_at`` is by the server's clock, in whole seconds. ``lsn`` is where its WAL was before the first database was
    read: each list has what was committed up to there, and may have more. On a standby it is where replay was.
    """

    taken_at: datetime
    lsn: Lsn
    timeline: int
    server_major: int
    system_identifier: int
    databases: tuple[ListedDatabase, ...]
    relations: tuple[ListedRelation, ...]

    def to_json(self) -> bytes:
        """Return the object's bytes."""
        mine: dict[int, list[ListedRelation]] = {database.oid: [] for database in self.databases}
        mine[0] = []
        for relation in self.relations:
            mine[relation.database_oid].append(relation)
        head = {
            "format": RELATIONS_FORMAT,
            "version": _VERSION,
            "taken_at": self.taken_at.astimezone(UTC).isoformat(),
            "lsn": str(self.lsn),
            "timeline": self.timeline,
            "server_major": self.server_major,
            "system_identifier": str(self.system_identifier),
            "columns": list(_COLUMNS),
        }
        parts = [_inside(head), ',\n"shared_relations": ', _rows(mine[0]), ',\n"databases": [\n']
        parts.append(",\n".join(f'{{{_database(one)}, "relations": {_rows(mine[one.oid])}}}' for one in self.databases))
        return f"{{{''.join(parts)}]}}\n".encode("ascii")

    @classmethod
    def from_json(cls, data: bytes, *, known: KnownRelations | None = None) -> Self:
        """Read the object's bytes.

        ``known`` is for reading many lists of one cluster: a relation that did not change is then one object in all.

        Raises: RelationListError, which names the field that is not as it should be.
        """
        try:
            return cls._from_values(json.loads(data), {} if known is None else known)
        except RecursionError:
            _refuse("it is nested too deeply")
        except InvalidLsnError as error:
            _refuse(f"'lsn': {error.message}")
        except ValueError as error:
            _refuse(str(error))

    @classmethod
    def _from_values(cls, value: object, known: KnownRelations) -> Self:
        got = typed_fields(
            _of_our_version(value),
            "list",
            format=str,
            version=int,
            taken_at=str,
            lsn=str,
            timeline=int,
            server_major=int,
            system_identifier=str,
            columns=list,
            shared_relations=list,
            databases=list,
        )
        if tuple(got["columns"]) != _COLUMNS:
            raise ValueError(f"'columns' is {got['columns']!r}, expected {list(_COLUMNS)!r}")
        relations = list(_relations(0, got["shared_relations"], known))
        databases = []
        for item in got["databases"]:
            database, rows = _database_of(item)
            databases.append(database)
            relations += _relations(database.oid, rows, known)
        return cls(
            taken_at=_moment(got["taken_at"]),
            lsn=Lsn.parse(got["lsn"]),
            timeline=got["timeline"],
            server_major=got["server_major"],
            system_identifier=_digits(got["system_identifier"]),
            databases=tuple(databases),
            relations=tuple(relations),
        )


def _inside(values: Mapping[str, object]) -> str:
    """Return an object's JSON without its braces."""
    return json.dumps(values, ensure_ascii=True)[1:-1]


def _database(one: ListedDatabase) -> str:
    return _inside(
        {
            "oid": one.oid,
            "name": one.name,
            "is_template": one.is_template,
            "allows_connections": one.allows_connections,
            "tablespace_oid": one.tablespace_oid,
            "unread": one.unread,
        }
    )


def _rows(relations: list[ListedRelation]) -> str:
    rows = (
        [one.oid, one.file_node, one.tablespace_oid, one.schema, one.name, one.kind.value, one.table_oid]
        for one in relations
    )
    lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    return f"[\n{lines}\n]" if lines else "[]"


def _refuse(reason: str) -> NoReturn:
    raise RelationListError(
        f"a list of relations cannot be used: {reason}",
        hint="The object is damaged or of a newer version of wal-pipeline; another day's list has most of the names.",
    ) from None


def _of_our_version(value: object) -> object:
    found = (value.get("format"), value.get("version")) if isinstance(value, dict) else type(value).__name__
    if found != (RELATIONS_FORMAT, _VERSION):
        raise ValueError(f"expected the format {(RELATIONS_FORMAT, _VERSION)}, found {found}")
    return value


def _database_of(value: object) -> tuple[ListedDatabase, list[object]]:
    unread = value.get("unread") if isinstance(value, dict) else None
    got = typed_fields(
        value,
        "database",
        oid=int,
        name=str,
        is_template=bool,
        allows_connections=bool,
        tablespace_oid=int,
        unread=type(None) if unread is None else str,
        relations=list,
    )
    rows = got.pop("relations")
    for name in ("oid", "tablespace_oid"):
        if not _is_oid(got[name]):
            raise ValueError(f"database: '{name}' is {got[name]!r}, expected a number below 2**32")
    return ListedDatabase(**got), rows


def _relations(database_oid: int, rows: Iterable[Any], known: KnownRelations) -> Iterable[ListedRelation]:
    for row in rows:
        try:
            key = database_oid, *row
            one = known.get(key)
        except TypeError:  # no array, or one that holds another
            raise _not_a_row(row) from None
        if one is None:
            one = known[key] = _relation(database_oid, row)
        yield one


def _not_a_row(row: object) -> ValueError:
    return ValueError(f"relation {row!r}: expected the columns {', '.join(_COLUMNS)}")


def _relation(database_oid: int, row: object) -> ListedRelation:
    if not isinstance(row, list) or len(row) != len(_COLUMNS):
        raise _not_a_row(row)
    oid, file_node, tablespace_oid, schema, name, kind, table_oid = row
    numbers = {"oid": oid, "file_node": file_node, "tablespace_oid": tablespace_oid}
    numbers |= {} if table_oid is None else {"table_oid": table_oid}
    for column, number in numbers.items():
        if not _is_oid(number):
            raise ValueError(f"relation {row!r}: '{column}' is {number!r}, expected a number below 2**32")
    for column, text in (("schema", schema), ("name", name)):
        if type(text) is not str:
            raise ValueError(f"relation {row!r}: '{column}' is {text!r}, expected text")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"relation {row!r}: 'kind' is {kind!r}, expected one of {', '.join(_KINDS)}")
    return ListedRelation(
        database_oid, oid, file_node, tablespace_oid, sys.intern(schema), sys.intern(name), _KINDS[kind], table_oid
    )


def _is_oid(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"'system_identifier' is {text!a}, expected digits")
    return int(text)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'taken_at' is {text!a}, expected a moment in ISO 8601") from None
    if moment.tzinfo is None:
        raise ValueError(f"'taken_at' is {text!a}, expected a time zone with it")
    return moment
