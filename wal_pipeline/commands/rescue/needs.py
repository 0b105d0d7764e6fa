"""Finds the needs of the chosen tables beside themselves, and decides which of them come along.

A type, a function or an extension that the target has as it was is used there: the rows then fit the living tables.
A sequence always comes along. So does a type of one's own that the target lacks, or has in another form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import psycopg

from wal_pipeline.commands.rescue.tables import FIRST_USER_OID, ChosenTables
from wal_pipeline.errors import RestoreError

# One row for each need of each part of a table: of itself (its columns), a default, a constraint, an index. The walk
# ends at members of extensions, and at sequences and tables, whose own needs do not count.
_NEEDS: Final = """
WITH RECURSIVE part (classid, objid) AS (
  SELECT 'pg_class'::regclass::oid, oid FROM unnest(%(tables)s::oid[]) AS oid
  UNION ALL SELECT 'pg_class'::regclass::oid, indexrelid FROM pg_index WHERE indrelid = ANY (%(tables)s::oid[])
  UNION ALL SELECT 'pg_attrdef'::regclass::oid, oid FROM pg_attrdef WHERE adrelid = ANY (%(tables)s::oid[])
  UNION ALL SELECT 'pg_constraint'::regclass::oid, oid FROM pg_constraint WHERE conrelid = ANY (%(tables)s::oid[])
), walk (part_class, part_id, classid, objid) AS (
  SELECT classid, objid, classid, objid FROM part
  UNION
  SELECT w.part_class, w.part_id, d.refclassid, d.refobjid
  FROM walk w CROSS JOIN LATERAL (
    SELECT d.refclassid, d.refobjid FROM pg_depend d
    WHERE d.classid = w.classid AND d.objid = w.objid AND d.deptype IN ('n', 'a', 'i')
    UNION ALL
    SELECT 'pg_constraint'::regclass::oid, c.oid FROM pg_constraint c
    WHERE w.classid = 'pg_type'::regclass AND c.contypid = w.objid
  ) d
  WHERE d.refobjid >= %(first)s
    AND d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_extension'::regclass)
    AND NOT (d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (%(tables)s::oid[]))
    AND NOT EXISTS (SELECT 1 FROM pg_depend e
                    WHERE e.classid = w.classid AND e.objid = w.objid AND e.deptype = 'e')
    AND NOT (w.classid = 'pg_class'::regclass AND w.objid <> w.part_id
             AND (SELECT c.relkind FROM pg_class c WHERE c.oid = w.objid) <> 'c')
)
SELECT w.part_class::regclass::text, w.part_id::bigint, w.classid::regclass::text, w.objid::bigint,
  o.type, o.identity, a.type, a.object_names, a.object_args, x.extname, t.typtype::text, r.relkind::text
FROM walk w
CROSS JOIN LATERAL pg_identify_object(w.classid, w.objid, 0) o
CROSS JOIN LATERAL pg_identify_object_as_address(w.classid, w.objid, 0) a
LEFT JOIN pg_type t ON w.classid = 'pg_type'::regclass AND t.oid = w.objid
LEFT JOIN pg_class r ON r.oid = CASE WHEN w.classid = 'pg_class'::regclass THEN w.objid ELSE t.typrelid END
LEFT JOIN pg_depend e ON e.classid = w.classid AND e.objid = w.objid AND e.deptype = 'e'
LEFT JOIN pg_extension x ON x.oid = e.refobjid
WHERE (w.classid, w.objid) <> (w.part_class, w.part_id)
  AND w.classid NOT IN ('pg_constraint'::regclass, 'pg_attrdef'::regclass)
  AND NOT (w.classid = 'pg_class'::regclass AND r.relkind IS DISTINCT FROM 'S')
  AND NOT (w.classid = 'pg_type'::regclass AND (t.typcategory = 'A' OR t.typtype = 'm'
           OR coalesce(t.typrelid = ANY (%(tables)s::oid[]), false)))
ORDER BY o.identity, 1, 2
"""
# The sequences that belong to a column of a chosen table follow it by themselves.
_OWNED: Final = """
SELECT DISTINCT d.objid::bigint FROM pg_depend d
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
  AND d.refobjid = ANY (%s::oid[])
"""
_DEFINITION: Final = """
SELECT concat_ws(' ', t.typtype::text,
  (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
  (SELECT string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
   FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped),
  CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) || ' ' || t.typnotnull END,
  t.typdefault,
  (SELECT string_agg(pg_get_constraintdef(oid), ', ' ORDER BY conname) FROM pg_constraint WHERE contypid = t.oid),
  (SELECT format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = t.oid))
FROM pg_type t WHERE t.oid = to_regtype(%s)
"""
_ADDRESS: Final = "SELECT objid FROM pg_get_object_address(%s, %s, %s)"
_OWN_TYPES: Final = ("e", "c", "d", "r")
_ENUM, _COMPOSITE = "e", "c"
_NO_SUCH: Final = ("42", "3F")  # errors of names (SQLSTATE 42xxx) and of schemas


class NeedKind(StrEnum):
    """The kinds of needs, by what a rescue can do about them."""

    OWN_TYPE = "type"  # it can come along
    SEQUENCE = "sequence"  # it comes along
    OTHER = "other"  # the target has it, or has it not


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a part of a table needs.

    ``part`` is the catalog and oid of the part: ``pg_class`` (the table itself or an index), ``pg_attrdef`` or
    ``pg_constraint``. ``identity`` and ``address`` are PostgreSQL's (pg_identify_object, pg_get_object_address).
    """

    part: tuple[str, int]
    oid: int
    kind: NeedKind
    word: str
    identity: str
    address: tuple[str, list[str], list[str]]
    extension: str | None = None
    type_kind: str | None = None

    @property
    def is_sequence(self) -> bool:
        """Whether it is a sequence that belongs to no column of the tables."""
        return self.kind is NeedKind.SEQUENCE

    @property
    def pair(self) -> tuple[str, str]:
        """Its schema and name, of a sequence."""
        schema, name = self.address[1][-2:]
        return schema, name

    @property
    def described(self) -> str:
        """The need as a person reads it."""
        of = "" if self.extension is None else f" of extension '{self.extension}'"
        return f"{self.word} {self.identity}{of}"


@dataclass(frozen=True, slots=True)
class JudgedNeeds:
    """The needs by their fates: ``along`` moves with the tables, for ``lacking`` the target has nothing."""

    along: tuple[Need, ...]
    lacking: tuple[Need, ...]
    notes: tuple[str, ...]


def read_needs(connection: psycopg.Connection[Any], chosen: ChosenTables) -> tuple[Need, ...]:
    """Return all that the chosen tables need, but for what PostgreSQL itself has and what follows them by itself."""
    owned = {int(oid) for (oid,) in connection.execute(_OWNED, (chosen.oids,)).fetchall()}
    rows = connection.execute(_NEEDS, {"tables": chosen.oids, "first": FIRST_USER_OID}).fetchall()
    found = []
    for part_class, part_id, _, oid, word, identity, kind, names, arguments, extension, typtype, relkind in rows:
        if relkind == "S" and oid in owned:
            continue
        part = (part_class.removeprefix("pg_catalog."), part_id)
        address = (kind, list(names), list(arguments or ()))
        found.append(Need(part, oid, _kind(typtype, relkind, extension), word, identity, address, extension, typtype))
    return tuple(found)


def _kind(typtype: str | None, relkind: str | None, extension: str | None) -> NeedKind:
    if extension is not None:
        return NeedKind.OTHER
    if typtype is None:
        return NeedKind.SEQUENCE if relkind == "S" else NeedKind.OTHER
    stands_alone = typtype != _COMPOSITE or relkind == "c"
    return NeedKind.OWN_TYPE if typtype in _OWN_TYPES and stands_alone else NeedKind.OTHER


def judge_needs(
    needs: Sequence[Need], scratch: psycopg.Connection[Any], target: psycopg.Connection[Any]
) -> JudgedNeeds:
    """Compare the needs with what the target has.

    Once one type comes along, those that may be made of it do too.
    """
    by_oid = {need.oid: need for need in needs}
    sequences = [need for need in by_oid.values() if need.kind is NeedKind.SEQUENCE]
    types = [need for need in by_oid.values() if need.kind is NeedKind.OWN_TYPE]
    fits = {need.oid: _definition(scratch, need) == _definition(target, need) for need in types}
    some_differ = not all(fits.values())
    along = [need for need in types if not fits[need.oid] or (some_differ and need.type_kind != _ENUM)]
    notes = [
        f"{need.described} came along: the target "
        + ("lacks it" if _definition(target, need) is None else "has it in another form, or made of other types")
        for need in along
    ]
    notes += [f"{need.described} came along" for need in sequences]
    is_there: dict[int, bool] = {}
    for need in by_oid.values():
        if need.kind is NeedKind.OTHER:
            is_there[need.oid] = _exists(target, need)
    lacking = tuple(need for need in needs if not is_there.get(need.oid, True))
    return JudgedNeeds((*along, *sequences), lacking, tuple(notes))


def _definition(connection: psycopg.Connection[Any], need: Need) -> str | None:
    row = connection.execute(_DEFINITION, (need.identity,)).fetchone()
    return None if row is None else str(row[0])


def _exists(connection: psycopg.Connection[Any], need: Need) -> bool:
    try:
        connection.execute(_ADDRESS, need.address)
    except psycopg.Error as error:
        if (error.sqlstate or "").startswith(_NO_SUCH):
            return False
        raise
    return True


def require_columns(lacking: Sequence[Need], is_table: Callable[[int], bool], target: str) -> None:
    """Refuse tables whose columns need what the target lacks. Raises: RestoreError, which names it."""
    found = [need for need in lacking if need.part[0] == "pg_class" and is_table(need.part[1])]
    if not found:
        return
    words = ", ".join(dict.fromkeys(need.described for need in found))
    extensions = list(dict.fromkeys(need.extension for need in found if need.extension is not None))
    make = "; ".join(f'CREATE EXTENSION "{name}"' for name in extensions)
    raise RestoreError(
        f"database '{target}' lacks {words}, which the columns need",
        hint=f"Make it there first{f' ({make})' if make else ''}, or write a dump with --output.",
    )


def told_needs(needs: Sequence[Need]) -> tuple[str, ...]:
    """Say what a dump of the tables alone needs where it is loaded, each once; sequences are in it."""
    found = dict.fromkeys(need.described for need in needs if not need.is_sequence)
    return tuple(f"the dump needs where it is loaded: {words}" for words in found)
