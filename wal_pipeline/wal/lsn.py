"""Reads and prints log sequence numbers (LSNs), which are byte positions in the WAL."""

import re
from typing import Final, Self

from wal_pipeline.errors import WalPipelineError

_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")
MAX_LSN: Final = 2**64 - 1


class Lsn(int):
    """A position in the WAL, in bytes: an unsigned 64-bit number, shown as PostgreSQL's ``pg_lsn`` (``16/B374D848``).

    Raises: ValueError outside 0 to 2**64 - 1.
    """

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 0 <= value <= MAX_LSN:
            raise ValueError(f"LSN {value} is outside 0 to 2**64 - 1")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``XXXXXXXX/XXXXXXXX``: one to eight hex digits on each side.

        Raises: InvalidLsnError (a ValueError too).
        """
        match = _TEXT.match(text)
        if match is None:
            raise InvalidLsnError(
                f"'{text}' is not an LSN", hint="An LSN is two hex numbers with a slash, such as 16/B374D848."
            )
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn('{self}')"


class InvalidLsnError(WalPipelineError, ValueError):
    """A text is not an LSN."""
