"""Reads values that a person gave for settings: paths, lists and keys; refuses what is ambiguous or wrong."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from pydantic import ValidationError

_FLEETING: Final = ("/run/credentials", "/dev", "/proc")  # where systemd and shells put a settings file for one process
_VARIABLE: Final = re.compile(r"(?:\A|/)\$|\$\{")
_KEY: Final = re.compile(r"[!-~]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_RECIPIENT_ENDS: Final = re.compile(r"[,\r\n]+|\s+(?=age1|ssh-(?:rsa|ed25519)\s)")
_URL_ENDS: Final = re.compile(r",?\s+|,(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_URL_FILE: Final = re.compile(r"([?&](?:sslrootcert|sslcert|sslkey|sslcrl|passfile)=)(?!system(?:&|\Z))([^&]+)")
_SQLITE_FILE: Final = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.DOTALL)


def clean_values(values: Mapping[str, str], many_lines: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Return the values without white space around them and without empty ones, and what is wrong with the others.

    Wrong are quotes that are part of a value, and control characters in one that is not among ``many_lines``.
    """
    cleaned = {name: value.strip() for name, value in values.items() if value.strip()}
    faults = []
    for name, value in cleaned.items():
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            faults.append(f"{name}: has quotes around its value: take them off, as 'docker run --env-file' keeps them")
        elif name not in many_lines and _CONTROL.search(value):
            faults.append(f"{name}: has a line feed or another control character inside its value")
    return cleaned, faults


def place_values(
    values: Mapping[str, str], paths: Collection[str], urls: Collection[str], folder: Path
) -> dict[str, str]:
    """Return the values; among them those named in ``paths`` and ``urls`` begin at ``folder``, where they are relative.

    Raises: ValueError, whose text begins with the variable's name.
    """
    placed = dict(values)
    for name, value in values.items():
        try:
            if name in paths:
                placed[name] = str(absolute_path(value, folder))
            elif name in urls:
                placed[name] = absolute_url(value, folder)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return placed


def describe_faults(error: ValidationError, variables: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each wrong value, with its variable and never the value itself.

    ``variables`` has each field's variables, the one to name first.
    """
    lines = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        variable = variables[field][0] if field in variables else field
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{variable}: {message}" if variable else message)
    return lines


def absolute_path(given: str, folder: Path) -> Path:
    """Return the path with ``~`` replaced by the home folder; a relative one begins at ``folder``.

    Raises: ValueError, whose text says what is wrong with it.
    """
    if _VARIABLE.search(given):
        raise ValueError("has a '$', which is not replaced here: write the path in full, or begin it with ~")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError("is no UTF-8 text") from None
    try:
        expanded = Path(given).expanduser()
    except RuntimeError:
        raise ValueError("begins with '~', and that home folder is not known: write the path in full") from None
    if not expanded.is_absolute() and str(folder).startswith(_FLEETING):
        raise ValueError(f"is a relative path, and no file stays in '{folder}': write the path in full")
    return folder.absolute() / expanded


def absolute_url(url: str, folder: Path) -> str:
    """Let the file of an SQLite URL, and the files that a PostgreSQL URL names, begin at ``folder``.

    Raises: ValueError.
    """
    if url.startswith("postgres"):
        return _URL_FILE.sub(lambda match: match[1] + quote(str(absolute_path(unquote(match[2]), folder))), url)
    match = _SQLITE_FILE.fullmatch(url)
    if match is None or match[2].startswith(("/", ":memory:", "file:")):
        return url
    return f"{match[1]}{absolute_path(match[2], folder)}{match[3]}"


def split_words(text: str) -> tuple[str, ...]:
    """Part a list by commas and white space."""
    return tuple(text.replace(",", " ").split())


def split_recipients(text: str) -> tuple[str, ...]:
    """Part age recipients by commas and line ends. An SSH public key has spaces; an age key ends at one."""
    return _parted(_RECIPIENT_ENDS, text)


def split_urls(text: str) -> tuple[str, ...]:
    """Part URLs by white space. A comma parts them where a URL begins behind it, and else belongs to its URL."""
    return _parted(_URL_ENDS, text)


def require_key_text(key: str) -> None:
    """Refuse what no access key has: it would make a header that cannot be sent, or a wrong signature.

    Raises: ValueError.
    """
    if not _KEY.fullmatch(key):
        raise ValueError("has a space, a line feed or a letter that is not ASCII, which no key has")


def _parted(ends: re.Pattern[str], text: str) -> tuple[str, ...]:
    return tuple(part for part in (word.strip() for word in ends.split(text)) if part)
