"""Reads the names of the tables that a person wants, and finds each of them among those that a database has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.sql_names import folded, shown, split_name

_SHOWN_NEAREST: Final = 5


class RescueOptionError(RestoreError):
    """An option of a rescue has a value that it cannot have."""

    is_refusal = True


class TableNotFoundError(RestoreError):
    """A table that is wanted was not there."""


@dataclass(frozen=True, slots=True)
class WantedTable:
    """A table as a person wrote it. ``schema`` is None where none was named.

    The shell takes the quotes away from ``--table "Orders"``. So a part without quotes means the name as it is written
    and the name in small letters, as SQL reads it.
    """

    text: str
    schema: tuple[str, bool] | None
    name: tuple[str, bool]

    @classmethod
    def parse(cls, text: str) -> "WantedTable":
        """Read ``table`` or ``schema.table``, each part plain or in quotes. Raises: RescueOptionError."""
        parts = split_name(text)
        if parts is None or len(parts) > 2:
            raise RescueOptionError(
                f"'{text}' is not the name of a table, expected such as public.orders",
                hint="A name with a dot or a quote in it stands in quotes, within those of the shell: "
                "'sales.\"my.table\"'. --database names the database.",
            )
        return cls(text, parts[0] if len(parts) == 2 else None, parts[-1])

    def matches(self, schema: str, name: str) -> bool:
        """Return whether a table may be the wanted one."""
        return _is_named(self.name, name) and (self.schema is None or _is_named(self.schema, schema))

    def exactly(self, schema: str, name: str) -> bool:
        """Return whether a table has the very letters that were written."""
        return self.name[0] == name and (self.schema is None or self.schema[0] == schema)


def _is_named(written: tuple[str, bool], name: str) -> bool:
    text, in_quotes = written
    return name == text or (not in_quotes and name == folded(text))


def choose_one(wanted: WantedTable, names: Iterable[tuple[str, str]], database: str) -> tuple[str, str]:
    """Return the schema and name of the wanted table among those of a database.

    Raises: TableNotFoundError with the nearest names; RestoreError where several may be meant, which it names.
    """
    known = sorted(set(names))
    found = [one for one in known if wanted.matches(*one)]
    if not found:
        raise TableNotFoundError(
            f"database '{database}' had no table '{wanted.text}' at that moment", hint=_nearest_hint(wanted, known)
        )
    if len(found) > 1:
        listed = ", ".join(shown(*one) for one in found)
        raise RestoreError(
            f"'{wanted.text}' may be one of {len(found)} tables of database '{database}': {listed}",
            hint=f"Name one of them, with its schema and its quotes, such as --table '{shown(*found[0])}'.",
        )
    return found[0]


def _nearest_hint(wanted: WantedTable, known: Sequence[tuple[str, str]]) -> str | None:
    by_text = {shown(*one): one for one in known}
    same_name = [text for text, one in by_text.items() if folded(one[1]) == folded(wanted.name[0])]
    by_name = {folded(one[1]): text for text, one in by_text.items()}
    close = get_close_matches(folded(wanted.name[0]), list(by_name), n=_SHOWN_NEAREST, cutoff=0.6)
    nearest = list(dict.fromkeys([*same_name, *(by_name[name] for name in close)]))[:_SHOWN_NEAREST]
    return f"The nearest names there: {', '.join(nearest)}." if nearest else None
