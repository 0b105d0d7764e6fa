"""Reads and writes names of SQL, plain and in quotes, so that no character in one is taken for a pattern."""

import re
from typing import Final

_PARTS: Final = re.compile(r'"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^".]+)')
_ASCII_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
MOST_NAME_BYTES: Final = 63  # NAMEDATALEN - 1, in PostgreSQL as it is built everywhere


def split_name(text: str) -> tuple[tuple[str, bool], ...] | None:
    """Return the parts of a name such as ``sales."My Orders"``, each with whether it stood in quotes.

    None where the text is no name: an empty part, or a quote that is not closed.
    """
    parts: list[tuple[str, bool]] = []
    position = 0
    while match := _PARTS.match(text, position):
        quoted = match["quoted"]
        parts.append((match["plain"], False) if quoted is None else (quoted.replace('""', '"'), True))
        position = match.end()
        if position == len(text):
            return tuple(parts)
        if text[position] != ".":
            return None
        position += 1
    return None


def folded(name: str) -> str:
    """Return a name as PostgreSQL reads it without quotes: the letters A to Z become small ones."""
    return name.translate(_ASCII_LOWER)


def quoted(name: str) -> str:
    """Return a name in quotes, as it is valid in SQL and as ``pg_dump`` takes it for no pattern."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def shown(*parts: str) -> str:
    """Return a name as a person writes it: with quotes only around the parts that need them."""
    return ".".join(part if re.fullmatch(r"[a-z_][a-z0-9_$]*", part) else quoted(part) for part in parts)
