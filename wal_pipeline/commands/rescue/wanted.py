"""Reads the names of the tables that a person wants, and finds each of them among those that a database has."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from wal_pipeline.archive.recovery.names.identifiers import parse_identifiers, quoted_name
from wal_pipeline.errors import RestoreError

_SHOWN_NEAREST: Final = 5
_FILES: Final = re.compile(r"([0-9]{1,10})/([0-9]{1,10})")


class RescueOptionError(RestoreError):
    """An option of a rescue has a value that it cannot have."""

    is_refusal = True


class TableNotFoundError(RestoreError):
    """A table that is wanted was not there."""


@dataclass(frozen=True, slots=True)
class WantedTable:
    """A table as a person wrote it.

    ``meanings`` are the pairs of schema and name that may be meant, the likeliest first; a schema of None is any.
    ``files`` are the numbers of a database and of a file in it, as a search writes what no list of relations knows.
    """

    text: str
    meanings: tuple[tuple[str | None, str], ...]
    files: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> "WantedTable":
        """Read ``table`` or ``schema.table``, each part plain or in quotes, or such as ``5/16384``.

        Raises: RescueOptionError.
        """
        numbers = _FILES.fullmatch(text)
        if numbers is not None:
            return cls(text, (), (int(numbers[1]), int(numbers[2])))
        meanings = parse_identifiers(text)
        if not meanings or "\0" in text:
            raise RescueOptionError(f"'{text}' is not the name of a table, expected such as public.orders.")
        return cls(text, meanings)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that may be meant, without their schemas."""
        return tuple(dict.fromkeys(name for _, name in self.meanings))

    def among(self, names: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Return the schemas and names that are meant, in order: those of the likeliest meaning that has any."""
        known = sorted(set(names))
        for schema, name in self.meanings:
            found = tuple(one for one in known if one[1] == name and schema in (None, one[0]))
            if found:
                return found
        return ()


def choose_one(wanted: WantedTable, names: Iterable[tuple[str, str]], database: str) -> tuple[str, str]:
    """Return the schema and name of the wanted table among those of a database.

    Raises: TableNotFoundError with the nearest names; RestoreError where several may be meant, which it names.
    """
    known = set(names)
    found = wanted.among(known)
    if not found:
        near = nearest_names(wanted, known)
        raise TableNotFoundError(
            f"database '{database}' had no table '{wanted.text}' at that moment",
            hint=f"The nearest names there: {', '.join(near)}." if near else None,
        )
    if len(found) > 1:
        listed = ", ".join(quoted_name(*one) for one in found)
        raise RestoreError(
            f"'{wanted.text}' may be one of {len(found)} tables of database '{database}': {listed}",
            hint=f"Name one of them with its schema, such as --table '{quoted_name(*found[0])}'.",
        )
    return found[0]


def nearest_names(wanted: WantedTable, names: Iterable[tuple[str, str]]) -> Sequence[str]:
    """Return the names that are closest to the wanted one, for an error message."""
    spelt: dict[str, list[str]] = {}
    for schema, name in sorted(set(names)):
        spelt.setdefault(name.lower(), []).append(quoted_name(schema, name))
    close = (one for name in wanted.names for one in get_close_matches(name.lower(), list(spelt), n=_SHOWN_NEAREST))
    return tuple(dict.fromkeys(text for one in close for text in spelt[one]))[:_SHOWN_NEAREST]
