"""Turns names, sizes, lengths of time and moments into text for people."""

from datetime import timedelta


def shown_name(name: str) -> str:
    r"""Return a name that can be printed: what is no UTF-8, and what is no printable character, as ``\xe9``.

    POSIX allows any bytes in a name; those that Python cannot decode become lone surrogates, which nothing encodes.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def size(size_bytes: float) -> str:
    """Return bytes for people, in powers of two."""
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes >= 2**power:
            return f"{size_bytes / 2**power:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def length(span: timedelta | float | None) -> str:
    """Return a length of time (seconds) for people; ``-`` for None."""
    if span is None:
        return "-"
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"
