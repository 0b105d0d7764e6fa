"""Reads the names of relation files: number, fork and segment, as PostgreSQL's reinit.c and relpath.c give them."""

import re
from dataclasses import dataclass
from typing import Final

_RELATION: Final = re.compile(r"([1-9][0-9]{0,9})(?:_(fsm|vm|init))?(?:\.([1-9][0-9]*))?")
_TEMPORARY: Final = re.compile(r"t[0-9]+_[0-9]+(?:_(?:fsm|vm|init))?(?:\.[0-9]+)?")
_LAST_OID: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class RelationFile:
    """The name of one file of a relation, read. ``fork`` is ``main``, ``fsm``, ``vm`` or ``init``.

    ``segment`` counts from 0: a relation is cut into files of a gibibyte.
    """

    number: int
    fork: str
    segment: int


def parse_relation_file(name: str) -> RelationFile | None:
    """Read a file's name without its folder; None where it is no relation's or a temporary one's."""
    found = _RELATION.fullmatch(name)
    if found is None or file_oid(found[1]) is None:
        return None
    return RelationFile(int(found[1]), found[2] or "main", int(found[3] or 0))


def is_temporary_relation(name: str) -> bool:
    """Whether a name is that of a session's temporary relation, such as ``t3_16384_fsm.1``."""
    return _TEMPORARY.fullmatch(name) is not None


def file_oid(name: str) -> int | None:
    """Return the oid that a name is; None where it is none."""
    return int(name) if re.fullmatch(r"[1-9][0-9]{0,9}", name) and int(name) <= _LAST_OID else None
