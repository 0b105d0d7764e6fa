"""Reads the configuration files that lie outside a server's data directory, through the server or from this host."""

import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg

from wal_pipeline.archive.format.configuration import KeptConfiguration
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.configuration_text import FileForm, IncludeKind, includes_of
from wal_pipeline.postgres.control_file import read_control_file

_ROOTS: Final = ("config_file", "hba_file", "ident_file")
_NAMES: Final = ("data_directory", *_ROOTS)
_MAX_FILE_BYTES: Final = 1 << 20
_MAX_FILES: Final = 200
_T = TypeVar("_T")


def read_configuration(connection: psycopg.Connection[Any], system_identifier: int) -> KeptConfiguration | None:
    """Return what is outside the data directory; None where the role may not see where the files are.

    A file is read by the server, which needs a superuser or pg_read_server_files and the right to call
    pg_read_binary_file; else from this host, where the data directory here is this server's.

    Raises: psycopg.Error where the connection fails.
    """
    rows = connection.execute(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)", (list(_NAMES),)
    ).fetchall()
    places = {name: posixpath.normpath(str(value)) for name, value in rows if value}
    if set(places) != set(_NAMES):
        return None
    is_here = _is_here(Path(places["data_directory"]), system_identifier)
    return _Reader(connection, places, is_here=is_here).read()


class _Reader:
    """Follows the includes from the three files, and keeps what is outside the data directory."""

    def __init__(self, connection: psycopg.Connection[Any], places: dict[str, str], *, is_here: bool) -> None:
        self._connection = connection
        self._places = places
        self._is_here = is_here
        self._seen: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._folders: list[str] = []
        self._missing: dict[str, str] = {}

    def read(self) -> KeptConfiguration:
        for name in _ROOTS:
            self._follow(self._places[name], FileForm.CONF if name == "config_file" else FileForm.HBA, needed=True)
        return KeptConfiguration(
            **self._places,
            files=self._files,
            folders=tuple(self._folders),
            links=self._links(),
            missing=self._missing,
        )

    def _follow(self, path: str, form: FileForm | None, *, needed: bool) -> None:
        if path in self._seen or len(self._seen) >= _MAX_FILES:
            return
        self._seen.add(path)
        try:
            data = self._either(lambda: self._ask_for_file(path), lambda: _read_here(Path(path)), path)
        except PostgresError as error:
            if needed:
                self._missing[path] = error.message
            return
        if self._is_outside(path):
            self._files[path] = data
        if form is not None:
            self._follow_includes(path, data.decode("utf-8", "surrogateescape"), form)

    def _follow_includes(self, path: str, text: str, form: FileForm) -> None:
        for include in includes_of(text, form):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), include.path))
            if include.kind is IncludeKind.FOLDER:
                self._follow_folder(target, form)
            else:
                below = None if include.kind is IncludeKind.LIST else form
                self._follow(target, below, needed=include.kind is not IncludeKind.FILE_IF_EXISTS)

    def _follow_folder(self, folder: str, form: FileForm) -> None:
        try:
            names = self._either(
                lambda: self._ask_for_names(folder), lambda: [path.name for path in Path(folder).iterdir()], folder
            )
        except PostgresError as error:
            self._missing[folder] = error.message
            return
        if self._is_outside(folder) and folder not in self._folders:
            self._folders.append(folder)
        for name in sorted(names):
            if name.endswith(".conf") and not name.startswith("."):
                self._follow(posixpath.join(folder, name), form, needed=True)

    def _either(self, ask: Callable[[], _T], look: Callable[[], _T], path: str) -> _T:
        """Ask the server, and look on this host where it refuses. Raises: PostgresError."""
        try:
            return ask()
        except psycopg.errors.Error as error:
            if error.sqlstate is None or error.sqlstate[:2] in ("08", "57"):
                raise
            reason = error.diag.message_primary or "the server refused it"
        if not self._is_here:
            raise PostgresError(f"'{path}' cannot be read: {reason}")
        try:
            return look()
        except OSError as error:
            raise PostgresError(f"'{path}' cannot be read: {error.strerror}") from error

    def _ask_for_file(self, path: str) -> bytes:
        statement = "SELECT pg_catalog.pg_read_binary_file(%s, 0, %s)"
        [(data,)] = self._connection.execute(statement, (path, _MAX_FILE_BYTES + 1)).fetchall()
        return _limited(bytes(data), path)

    def _ask_for_names(self, folder: str) -> list[str]:
        rows = self._connection.execute("SELECT pg_catalog.pg_ls_dir(%s)", (folder,)).fetchall()
        return [str(row[0]) for row in rows]

    def _is_outside(self, path: str) -> bool:
        """Return whether a base backup does not have a file: it is elsewhere, or a link, which pg_basebackup skips."""
        inside = f"{self._places['data_directory']}/"
        return not path.startswith(inside) or (self._is_here and Path(path).is_symlink())

    def _links(self) -> dict[str, str]:
        """Return the links directly in the data directory, where it can be seen from here."""
        if not self._is_here:
            return {}
        with os.scandir(self._places["data_directory"]) as entries:
            return {entry.name: str(Path(entry.path).readlink()) for entry in entries if entry.is_symlink()}


def _is_here(pgdata: Path, system_identifier: int) -> bool:
    """Return whether the server's data directory is on this host and we can read it, and not another of that name."""
    try:
        return read_control_file(pgdata).system_identifier == system_identifier
    except (OSError, PostgresError):
        return False


def _read_here(path: Path) -> bytes:
    with path.open("rb") as file:
        return _limited(file.read(_MAX_FILE_BYTES + 1), str(path))


def _limited(data: bytes, path: str) -> bytes:
    if len(data) > _MAX_FILE_BYTES:
        raise PostgresError(f"'{path}' has more than {_MAX_FILE_BYTES} bytes")
    return data
