"""Reads and writes names of relations as PostgreSQL does: in quotes where they need them."""

import re
from typing import Final

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_$]*\Z")
_PART: Final = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def quote_identifier(name: str) -> str:
    """Return one name, in quotes unless it has only lower-case ASCII letters, digits, ``_`` and ``$``."""
    return name if _PLAIN.match(name) else '"' + name.replace('"', '""') + '"'


def quoted_name(schema: str, name: str) -> str:
    """Return a name with its schema."""
    return f"{quote_identifier(schema)}.{quote_identifier(name)}"


def parse_identifiers(text: str) -> tuple[tuple[str | None, str], ...]:
    """Return the pairs of schema and name that a person may mean, the likeliest first; a schema of None is any.

    PostgreSQL reads a name without quotes in lower case. A person who pastes it from a list has it as it is spelt
    there, so that comes first; a name with a dot that stands without quotes comes last.
    """
    parts = _parts(text.strip())
    found: list[tuple[str | None, str]] = []
    if parts is not None and len(parts) <= 2:
        for fold in (False, True):
            names = [name.lower() if fold and not is_quoted else name for name, is_quoted in parts]
            found.append((names[0] if len(names) == 2 else None, names[-1]))
    if text.strip():
        found.append((None, text.strip()))
    return tuple(dict.fromkeys(found))


def _parts(text: str) -> list[tuple[str, bool]] | None:
    """Split a name at the dots outside quotes, and say of each part whether it had quotes; None where it is none."""
    found: list[tuple[str, bool]] = []
    place = 0
    while match := _PART.match(text, place):
        inner = match[1]
        found.append((match[2], False) if inner is None else (inner.replace('""', '"'), True))
        place = match.end()
        if place == len(text):
            return found
        if text[place] != ".":
            return None
        place += 1
    return None
