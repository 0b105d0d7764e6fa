"""Opens all that the settings name, each thing as an item of its own, before a later step needs it."""

import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wal_pipeline.codec.age import decrypt, encrypt, load_identities, load_recipients
from wal_pipeline.commands.alerts.destinations import apprise_destinations, check_destination
from wal_pipeline.commands.check.item import CheckItem, try_item
from wal_pipeline.commands.setup.writable import require_writable
from wal_pipeline.errors import CodecError, PostgresError, SettingsError
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.stores.s3.trust import count_authorities

_PROBE: Final = b"wal-pipeline checks that the identity opens what the recipients encrypt"
_PROGRAMS: Final = ("postgres", "pg_waldump", "pg_basebackup", "pg_verifybackup", "pg_amcheck", "psql")
_USUAL_MAJOR: Final = 15


@dataclass(frozen=True, slots=True)
class NamedThings:
    """The files, folders, programs, users and services that the settings name.

    The folders and the files of the server's connection are by the names of their settings. ``schedules`` is the line
    that says when Dagster starts what; nothing is opened for it.
    """

    recipients: tuple[str, ...] = ()
    identity_file: Path | None = None
    notification_urls: tuple[str, ...] = field(default=(), repr=False)
    sql_file: Path | None = None
    bindir: Path | None = None
    owner: str | None = None
    role: str | None = None
    database: str | None = None
    ca_bundle: Path | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    connection_files: Mapping[str, Path] = field(default_factory=dict)
    schedules: str = ""


def check_named(named: NamedThings, server: PostgresServer, major: int | None) -> tuple[CheckItem, ...]:
    """Open each thing. ``major`` is the server's version, None where the server does not answer."""
    items = [try_item(name, action) for name, action in _items(named, major)]
    if major is not None and named.role is not None and named.database is not None:
        role, database = named.role, named.database
        items.append(try_item("drill: role and database", lambda: _role_and_database(server, role, database)))
    return tuple(items)


def _items(named: NamedThings, major: int | None) -> Iterator[tuple[str, Callable[[], str]]]:
    for name, path in named.folders.items():
        yield f"folder: {name}", lambda name=name, path=path: require_writable(name, path)  # type: ignore[misc]
    if named.recipients:
        yield "age recipients", lambda: _recipients(named)
    if named.identity_file is not None:
        yield "age identity", lambda: _identity(named)
    for destination in apprise_destinations(named.notification_urls):
        yield f"notification URL {destination.name}", lambda one=destination: check_destination(one)  # type: ignore[misc]
    if named.bindir is not None:
        yield "PGBINDIR", lambda: _programs(named.bindir or Path(), major)
    if named.sql_file is not None:
        yield "drill: SQL file", lambda: _text_file("WAL_PIPELINE_DRILL_SQL_FILE", named.sql_file or Path())
    if named.owner is not None:
        yield "drill: owner", lambda: _user(named.owner or "")
    if named.ca_bundle is not None:
        yield "CA bundle", lambda: _authorities(named.ca_bundle or Path())
    for name, path in named.connection_files.items():
        yield f"connection: {name}", lambda name=name, path=path: _readable(name, path)  # type: ignore[misc]
    if named.schedules:
        yield "schedules", lambda: named.schedules


def _recipients(named: NamedThings) -> str:
    count = len(load_recipients(named.recipients))
    shown = f"{count} can encrypt"
    if named.identity_file is None:
        return f"{shown}; a restore needs WAL_PIPELINE_AGE_IDENTITY_FILE, which is not set here"
    return shown


def _identity(named: NamedThings) -> str:
    path = named.identity_file or Path()
    identities = load_identities(path)
    if not named.recipients:
        return f"{len(identities)} in '{path}'"
    try:
        recipients: list[Any] = load_recipients(named.recipients)
    except SettingsError:
        return f"{len(identities)} in '{path}'; not tried, because a recipient cannot be read"
    try:
        decrypt(encrypt(_PROBE, recipients), identities)
    except CodecError:
        raise SettingsError(
            f"no identity in '{path}' opens what WAL_PIPELINE_AGE_RECIPIENTS encrypts",
            hint="Add the identity's own public key to the recipients (age-keygen -y), or name the right file.",
        ) from None
    return f"{len(identities)} in '{path}', which open what is encrypted"


def _programs(bindir: Path, major: int | None) -> str:
    if not bindir.is_dir():
        raise SettingsError(f"'{bindir}' is no folder", hint="Set PGBINDIR to the folder of PostgreSQL's programs.")
    try:
        found = find_binaries(major or _USUAL_MAJOR, programs=_PROGRAMS, bindir=bindir, search_path="")
        elsewhere = found.bindir.resolve() != bindir.resolve()
    except PostgresError:
        elsewhere = True
    if elsewhere:
        missing = [name for name in _PROGRAMS if not os.access(bindir / name, os.X_OK)]
        version = "of the server's version or newer" if major is None else f"of PostgreSQL {major} or newer"
        reason = f"lacks {', '.join(missing)}" if missing else f"has no programs {version}"
        raise SettingsError(
            f"'{bindir}' {reason}",
            hint="Install the server package of that version, or set PGBINDIR to its folder: else others are taken.",
        )
    return f"'{bindir}' has the programs of PostgreSQL {found.major}"


def _text_file(name: str, path: Path) -> str:
    if not _content(name, path).strip():
        raise SettingsError(f"'{path}' is empty", hint=f"Write SQL into it, or remove {name}.")
    return f"'{path}' can be read"


def _user(name: str) -> str:
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(
            f"there is no user '{name}'", hint="Set WAL_PIPELINE_DRILL_OWNER to PostgreSQL's user."
        ) from None
    return f"user '{name}' is there"


def _role_and_database(server: PostgresServer, role: str, database: str) -> str:
    missing = server.missing_names(role=role, database=database)
    if missing:
        raise SettingsError(
            f"the server has no {' and no '.join(missing)}",
            hint="Set WAL_PIPELINE_DRILL_ROLE and WAL_PIPELINE_DRILL_DATABASE to names that the server has.",
        )
    return f"role '{role}' and database '{database}' are there"


def _authorities(path: Path) -> str:
    return f"{count_authorities(path)} authorities in '{path}' are trusted beside the usual ones"


def _readable(name: str, path: Path) -> str:
    if path.is_dir():
        return f"'{path}' is there"
    _content(f"'{name}' of the server's connection", path)
    return f"'{path}' can be read"


def _content(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"'{path}' cannot be read: {error.strerror}", hint=f"Mend {name}, or the rights of the file."
        ) from None
