"""Reads and rewrites PostgreSQL's configuration files as text: their includes and the places that they name. Pure."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wal_pipeline.postgres.recovery import quoted

_PLACES: Final = ("data_directory", "hba_file", "ident_file", "external_pid_file")
_CONF_INCLUDE: Final = re.compile(
    r"(?P<head>\s*(?P<how>include|include_if_exists|include_dir)(?:\s*=\s*|\s+))(?P<path>'(?:[^']|'')*'|[^\s#']+)",
    re.IGNORECASE,
)
_HBA_INCLUDE: Final = re.compile(
    r'(?P<head>\s*(?P<how>include|include_if_exists|include_dir)\s+)(?P<path>"[^"]*"|[^\s#",]+)'
)
_HBA_LIST: Final = re.compile(r'(?P<head>(?:^|(?<=[\s,]))@)(?P<path>"[^"]+"|[^\s#",]+)')
_SETTING: Final = re.compile(r"\s*(?P<name>[A-Za-z_][\w.]*)(?:\s*=\s*|\s+)(?P<value>'(?:[^']|'')*'|[^\s#]+)")


class FileForm(StrEnum):
    """The form of a file: of ``postgresql.conf``, or of ``pg_hba.conf`` and ``pg_ident.conf``."""

    CONF = "conf"
    HBA = "hba"


class IncludeKind(StrEnum):
    """The ways in which one file names another."""

    FILE = "include"
    FILE_IF_EXISTS = "include_if_exists"
    FOLDER = "include_dir"
    LIST = "list"  # of names, as '@file' in pg_hba.conf


@dataclass(frozen=True, slots=True)
class ConfigurationInclude:
    """A file or folder that another file names; ``path`` is as it is written, relative to that file's folder."""

    kind: IncludeKind
    path: str


def includes_of(text: str, form: FileForm) -> tuple[ConfigurationInclude, ...]:
    """Return what a file names, in order."""
    found: list[ConfigurationInclude] = []

    def note(include: ConfigurationInclude) -> str:
        found.append(include)
        return include.path

    rewrite_includes(text, form, note)
    return tuple(found)


def rewrite_includes(text: str, form: FileForm, place: Callable[[ConfigurationInclude], str]) -> str:
    """Return the text with each included path replaced by the one that ``place`` returns for it."""
    return "".join(_rewritten(line, form, place) for line in text.splitlines(keepends=True))


def without_places(text: str) -> str:
    """Return the text of a ``postgresql.conf`` whose settings of places are comments: they were another folder's."""
    return "".join(_without_place(line) for line in text.splitlines(keepends=True))


def settings_in(text: str) -> dict[str, str]:
    """Return the settings of one file, by their names in lower case; the last of each counts."""
    return dict(_settings(text))


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = _SETTING.match(line)
        if match is not None:
            yield match["name"].lower(), _plain(match["value"])


def _without_place(line: str) -> str:
    match = _SETTING.match(line)
    return f"#{line}" if match is not None and match["name"].lower() in _PLACES else line


def _rewritten(line: str, form: FileForm, place: Callable[[ConfigurationInclude], str]) -> str:
    pattern = _CONF_INCLUDE if form is FileForm.CONF else _HBA_INCLUDE
    match = pattern.match(line)
    if match is not None:
        written = place(ConfigurationInclude(IncludeKind(match["how"].lower()), _plain(match["path"])))
        quote = quoted(written) if form is FileForm.CONF else f'"{written}"'
        return f"{match['head']}{quote}{line[match.end() :]}"
    if form is FileForm.CONF or line.lstrip().startswith("#"):
        return line
    return _HBA_LIST.sub(
        lambda found: f'{found["head"]}"{place(ConfigurationInclude(IncludeKind.LIST, _plain(found["path"])))}"', line
    )


def _plain(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1].replace("''", "'").replace("\\\\", "\\")
    return text.strip('"')
