"""Names from a file system or a terminal as text that every log, database and screen takes."""


def shown_name(name: str) -> str:
    r"""Return a name that can be printed: what is no UTF-8, and what is no printable character, as ``\xe9``.

    POSIX allows any bytes in a name; those that Python cannot decode become lone surrogates, which nothing encodes.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
