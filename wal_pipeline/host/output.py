"""Lets standard output and standard error take any text, whatever encoding the terminal, pipe or log has."""

import codecs
import sys
from typing import Final

_HANDLER: Final = "wal-pipeline-plain"
_PLAIN: Final = {
    "●": "*",
    "▲": "!",
    "■": "X",
    "○": "o",
    "◆": "#",
    "✖": "X",
    "░": "-",
    "━": "=",
    "╸": "=",
    "╺": "=",
    "·": ".",
    "…": "...",
    "→": "->",
}


def accept_any_text() -> None:
    """Write a character that the encoding lacks as a plain one or as its code, where Python would raise an error.

    A name may hold bytes that are no text in any encoding: they are written as their codes too.
    """
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in wrong), error.end
