"""Reads a settings file strictly: a line that two programs would read in two ways is refused, by its number and name.

One line sets one variable: ``NAME=value``. The value ends with the line; white space around it is no part of it.

- A line that is empty or begins with ``#`` says nothing. No other line may hold a comment.
- Without quotes every character stands for itself, ``$`` and ``\\`` too.
- In single quotes every character stands for itself. A backslash may stand before neither a quote nor a backslash.
- In double quotes ``\\"`` stands for ``"``, and ``\\\\`` for a backslash; other backslashes are refused.

python-dotenv reads the lines. It alone would pass over what it cannot read, replace ``${NAME}``, and take the last of
two lines with one name.
"""

import io
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream

from wal_pipeline.errors import SettingsError
from wal_pipeline.host.file_owner import closed_folder, name_of_user, way_hint

_LINE: Final = re.compile(r"\s*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)", re.DOTALL)
_NAME: Final = re.compile(r"\s*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)")
_SINGLE: Final = re.compile(r"'[^']*'")
_DOUBLE: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_HINT: Final = (
    "Write NAME=value on a line of its own, with a value that has '#', quotes or a backslash in single quotes, and "
    "comments on lines of their own."
)
FILE_HINT: Final = (
    "Name a copy of .env.example with --env-file or WAL_PIPELINE_ENV_FILE; without either, ./.env is read."
)


def find_env_file(given: Path | str | None) -> Path | None:
    """Return the settings file that is read, absolute: ``given``, else ``.env`` in the current folder, if it is there.

    Raises: SettingsError where the given one is not there.
    """
    named = str(given or "").strip()
    try:
        path = Path(named or ".env").expanduser().absolute()
    except RuntimeError:
        raise SettingsError(f"settings file '{named}' is in a home folder that is not known", hint=FILE_HINT) from None
    try:
        path.stat()
    except PermissionError:
        if named:
            raise _refused(path) from None
        message = f"user '{name_of_user(os.geteuid())}' cannot look for settings in the current folder, '{path.parent}'"
        raise SettingsError(message, hint=f"Change into another folder (cd /). {FILE_HINT}") from None
    except OSError:
        if named:
            raise SettingsError(f"settings file '{named}' does not exist", hint=FILE_HINT) from None
        return None
    return path if named or path.is_file() else None


def read_env_file(path: Path, is_ours: Callable[[str], bool]) -> dict[str, str]:
    """Return the variables of a file. ``is_ours`` says of a name whether it may be shown, and may stand there once.

    Raises: SettingsError, which shows no value.
    """
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(re.split(r"\r\n|\n|\r", _text(path)), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, value = _binding(line, _Place(path, number, is_ours))
        if is_ours(name) and name.upper() in lines:
            place = f"settings file '{path}', line {number}: '{name}' stands in line {lines[name.upper()]} already"
            raise SettingsError(place, hint="Keep the line that is meant, and remove the other.")
        lines.setdefault(name.upper(), number)
        values[name] = value
    return values


class _Place:
    """A line of a file, and the errors about it."""

    def __init__(self, path: Path, number: int, is_ours: Callable[[str], bool]) -> None:
        self._path = path
        self._number = number
        self._is_ours = is_ours

    def error(self, line: str, fault: str) -> SettingsError:
        """Return the error. A name that is not one of ours may be part of a secret, and is not shown."""
        match = _NAME.match(line)
        shown = f"'{match[1]}' " if match and self._is_ours(match[1]) else "it "
        return SettingsError(f"settings file '{self._path}', line {self._number}: {shown}{fault}", hint=_HINT)


def _binding(line: str, place: _Place) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise place.error(line, "has no '=' behind a name")
    name, raw = match[1], match[2].rstrip()
    fault = _fault(raw)
    if fault is not None:
        raise place.error(line, fault)
    found = [binding for binding in parse_stream(io.StringIO(f"{name}={raw}")) if binding.key is not None]
    if len(found) != 1 or found[0].error or found[0].value is None:
        raise place.error(line, "has a value that cannot be read")
    return name, found[0].value


def _fault(raw: str) -> str | None:
    """Return what is ambiguous or wrong about a value as it is typed; None where nothing is."""
    if any(ord(character) < 0x20 and character != "\t" for character in raw):
        return "has a control character in its value"
    if raw[:1] in ("'", '"'):
        return _quoted_fault(raw)
    if raw.startswith("#") or re.search(r"\s#", raw):
        return "has a '#' that is a comment to some programs and part of the value to others"
    return "ends in a backslash, which continues the line for some programs" if raw.endswith("\\") else None


def _quoted_fault(raw: str) -> str | None:
    quoted = (_SINGLE if raw[0] == "'" else _DOUBLE).match(raw)
    if quoted is None:
        return "has no closing quote on its line"
    if quoted.end() != len(raw):
        return "has something behind its closing quote"
    if raw[0] == "'":
        return "has a backslash before a backslash or quote in single quotes" if re.search(r"\\[\\']", raw) else None
    return "has a backslash in double quotes that programs read in several ways" if _odd_backslash(raw) else None


def _odd_backslash(raw: str) -> bool:
    return re.search(r'\\(?![\\"])', re.sub(r'\\[\\"]', "", raw)) is not None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"settings file '{path}' is no UTF-8 text: byte {error.start + 1} cannot be read", hint=FILE_HINT
        ) from None  # the error's own text repeats the values
    except PermissionError:
        raise _refused(path) from None
    except OSError as error:
        raise SettingsError(f"settings file '{path}' cannot be read: {error.strerror}", hint=FILE_HINT) from error


def _refused(path: Path) -> SettingsError:
    """Return the error for a file that this user may not read: the folder or the file that is closed, and the line."""
    uid = os.geteuid()
    user = name_of_user(uid)
    if closed_folder(path, uid) is None:
        hint = f"It holds keys, and is for one user. Type: sudo chown {user} {shlex.quote(str(path))}"
    else:
        hint = (
            f"{way_hint([path], uid)}. Better keep it in /etc: "
            f"sudo install -D -o {user} -m 0600 {shlex.quote(str(path))} /etc/wal-pipeline/stores.env"
        )
    return SettingsError(f"settings file '{path}' cannot be read by user '{user}'", hint=hint)
