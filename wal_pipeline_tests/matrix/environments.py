"""Chooses environments that together hold each combination of two, three or more settings that users differ in."""

from dataclasses import astuple, dataclass, fields
from itertools import combinations, product
from typing import Literal, Self, get_args, get_type_hints

Version = Literal[15, 18]
Encoding = Literal["UTF8", "SQL_ASCII", "LATIN1"]
DateStyle = Literal["ISO, MDY", "German, DMY", "SQL, DMY"]
Locale = Literal["C", "de_DE"]
Umask = Literal["022", "077"]
Secrecy = Literal["plain", "age"]
Layout = Literal["plain", "mount point", "Debian", "linked pg_wal"]


@dataclass(frozen=True, slots=True)
class Environment:
    """One host of a user. ``locale`` names the language; its encoding follows from ``encoding``."""

    version: Version
    encoding: Encoding
    date_style: DateStyle
    locale: Locale
    umask: Umask
    layout: Layout
    secrecy: Secrecy

    def __str__(self) -> str:
        style = self.date_style.split(",", maxsplit=1)[0]
        layout = self.layout.replace(" ", "_")
        return f"{self.version}-{self.encoding}-{style}-{self.locale}-{self.umask}-{layout}-{self.secrecy}"

    @property
    def locale_name(self) -> str:
        """The locale as ``setlocale`` knows it. SQL_ASCII goes with any; de_DE's is then that of UTF-8."""
        if self.locale == "C":
            return "C"
        return f"de_DE.{'ISO-8859-1' if self.encoding == 'LATIN1' else 'UTF-8'}"

    @classmethod
    def all(cls) -> tuple[Self, ...]:
        """Return every environment."""
        kinds = get_type_hints(cls)
        return tuple(cls(*values) for values in product(*(get_args(kinds[field.name]) for field in fields(cls))))

    @classmethod
    def selection(cls, strength: int) -> tuple[Self, ...]:
        """Return environments in which every combination of values of any ``strength`` settings occurs.

        The next one is always the one that adds most, so the selection is always the same and close to the smallest.
        """
        every = cls.all()
        wanted = frozenset().union(*(_combinations(environment, strength) for environment in every))
        chosen: list[Self] = []
        while wanted:
            chosen.append(max(every, key=lambda one: len(wanted & _combinations(one, strength))))
            wanted -= _combinations(chosen[-1], strength)
        return tuple(chosen)


def _combinations(environment: Environment, strength: int) -> frozenset[tuple[tuple[int, object], ...]]:
    return frozenset(combinations(enumerate(astuple(environment)), strength))
