"""Turns names, counts, sizes, lengths of time and moments into text for people, and takes secrets out of a text.

Two forms of a size and of a length stand here on purpose. ``size`` and ``length`` are for a screen, which is looked at
once. ``coarse_size`` and ``coarse_length`` are for alerts: they are repeated each minute, and shall change seldom.
"""

import html
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote, quote_plus

_HIDDEN: Final = "***"


def shown_name(name: str) -> str:
    r"""Return a name that can be printed: bytes that are no UTF-8 and characters that are not printable as ``\xe9``.

    POSIX allows any bytes in a name; those that Python cannot decode become lone surrogates, which nothing encodes.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 segment``, ``2 segments``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(size_bytes: float) -> str:
    """Return bytes in the largest power of two that fits: ``512 B``, ``1.5 MiB``."""
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes >= 2**power:
            return f"{size_bytes / 2**power:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def coarse_size(size_bytes: int) -> str:
    """Return bytes in whole MiB, from 1 GiB on in GiB."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.0f} MiB"


def billed_size(size_bytes: int) -> str:
    """Return bytes in GB (10**9), as the stores' price lists count."""
    return f"{size_bytes / 10**9:.2f} GB"


def length(span: timedelta | float | None) -> str:
    """Return a length of time (seconds), rounded: ``2.5 s``, ``90 min``; ``-`` for None.

    The age of what another clock dates into the future is none: ``0.0 s``.
    """
    if span is None:
        return "-"
    seconds = max(0.0, span.total_seconds() if isinstance(span, timedelta) else span)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"


def coarse_length(span: timedelta) -> str:
    """Return the whole seconds, minutes, hours or days of a length of time; a negative one is none."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172800 else f"{seconds // 86400} days"


def moment_text(at: datetime | None) -> str:
    """Return a moment to the second, without its zone: ``2026-11-22 17:45:00``; ``-`` for None."""
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def moment_utc(at: datetime) -> str:
    """Return a moment of UTC to the second: ``2026-11-22 17:45:00Z``."""
    return f"{moment_text(at)}Z"


def moment_json(at: datetime | None) -> str | None:
    """Return a moment in ISO 8601 with its zone, as JSON holds it; None stays None."""
    return None if at is None else at.isoformat()


def on_one_line(text: str, secrets: Iterable[str], *, most: int = 300) -> str:
    """Return a text on one line, cut at ``most`` characters, without the secrets.

    They are hidden first: a secret that ends in a line feed is not found any more once white space was joined, and of
    one that lies across the cut a part would stay.
    """
    return " ".join(hidden(text, secrets).split())[:most]


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
