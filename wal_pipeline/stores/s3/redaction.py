"""Takes our keys out of a provider's text, before anything else is done to it. Pure."""

import html
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

_HIDDEN: Final = "***"
_MOST_TEXT: Final = 300


def on_one_line(text: str, secrets: Iterable[str]) -> str:
    """Return a text on one line, in short, without the secrets.

    They are hidden first: a secret that ends in a line feed is not found any more once white space was joined, and of
    one that lies across the cut a part would stay.
    """
    return " ".join(hidden(text, secrets).split())[:_MOST_TEXT]


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which each secret is replaced, as it is and as a library may write it."""
    forms = {form for secret in secrets for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, _HIDDEN)
    return text


def _forms(secret: str) -> Iterator[str]:
    for one in {secret, secret.strip(), " ".join(secret.split())} - {""}:
        yield from (one, quote(one), quote(one, safe=""), quote_plus(one), html.escape(one))
        yield repr(one)[1:-1]
        yield repr(one.encode("utf-8", "surrogateescape"))[2:-1]
