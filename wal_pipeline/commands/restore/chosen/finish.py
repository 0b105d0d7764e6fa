"""Drops the databases that were not asked for from a started server, and looks whether those that were are there."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wal_pipeline.commands.restore.chosen.databases import ALWAYS_THERE, FIRST_NORMAL_OID, ChosenDatabases
from wal_pipeline.commands.restore.chosen.left_out import LEFT_OUT_WORD
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.recovery import drop_setting

_CONNECT_SECONDS: Final = 60
_DROP_SECONDS: Final = 900
_LOGIN_TRIGGERS_SINCE: Final = 17
_LIST: Final = (
    "SELECT coalesce(json_agg(json_build_object('oid', oid::int8, 'name', datname, 'connects', datallowconn) "
    "ORDER BY datname), '[]') FROM pg_catalog.pg_database"
)
# datconnlimit -2 is PostgreSQL's own mark of a database that was dropped in part (pg_database.h:
# DATCONNLIMIT_INVALID_DB, since 15.4): nobody can connect to it, autovacuum passes over it, and it can only be dropped.
_CLOSE: Final = (
    "UPDATE pg_catalog.pg_database SET datallowconn = false, datistemplate = false, datconnlimit = -2 WHERE oid IN ({})"
)


@dataclass(frozen=True, slots=True)
class FinishedDatabases:
    """The fate of a restored server's databases after its recovery.

    ``refused`` are those that could not be dropped, each with the server's reason: nobody can connect to them.
    ``trouble`` says why nothing was dropped; the databases that were left out let nobody in all the same.
    """

    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    trouble: RestoreError | PostgresError | None = None


@dataclass(frozen=True, slots=True)
class _Database:
    oid: int
    name: str
    connects: bool


def drop_left_out(prepared: PreparedRestore, *, role: str | None = None) -> FinishedDatabases:
    """Drop the databases that were not asked for from the server that runs on the restored data directory.

    The server must be open, its recovery at an end. Those that every cluster has stay: template0, template1 and
    postgres. First all others are closed for good at once, then one after the other is dropped. ``role`` is a
    superuser, by default the role with the name of the server's user.

    Raises: RestoreError where a database that was asked for is not there, or has no content: nothing was dropped then;
    PostgresError where the server does not let us in.
    """
    chosen = prepared.chosen
    if chosen is None:
        return FinishedDatabases()
    server = _Server(prepared, role)
    found = server.databases()
    kept = [one for one in found if one.name in chosen.names or one.oid in chosen.oids]
    _require_wanted(chosen, found, kept)
    for one in kept:
        server.require_content(one)
    others = [one for one in found if one not in kept and one.name not in ALWAYS_THERE and one.oid >= FIRST_NORMAL_OID]
    if others:
        server.run(_CLOSE.format(", ".join(str(one.oid) for one in others)))
    refused: dict[str, str] = {}
    for one in others:
        try:
            server.run(f"DROP DATABASE {_identifier(one.name)}", seconds=_DROP_SECONDS)
        except PostgresError as error:
            refused[one.name] = error.message
    drop_setting(prepared.request.pgdata, "ignore_invalid_pages")
    dropped = tuple(one.name for one in others if one.name not in refused)
    return FinishedDatabases(tuple(one.name for one in kept), dropped, refused)


def drop_lines(chosen: ChosenDatabases) -> tuple[str, ...]:
    """Return the SQL that drops the databases whose files were left out, for a person who starts the server."""
    names = chosen.left_out.names
    if not names:
        return ()
    close = _CLOSE.format(", ".join(map(str, sorted(names))))
    drops = (f"DROP DATABASE {_identifier(name)};" for name in chosen.left_out_names)
    return (f"{close};", *drops, "ALTER SYSTEM RESET ignore_invalid_pages;")


def _require_wanted(chosen: ChosenDatabases, found: Sequence[_Database], kept: Sequence[_Database]) -> None:
    for one in kept:
        if one.oid in chosen.left_out.names:
            then = chosen.left_out.names[one.oid]
            raise RestoreError(
                f"database '{one.name}' is the one that the newest list of the databases calls '{then}', and its files "
                "were left out: it was renamed later",
                hint=f"Restore again with --only-database {then} too.",
            )
    renamed = [one for one in kept if one.name not in chosen.names]
    missing = [name for name in chosen.names if name not in {one.name for one in kept} | ALWAYS_THERE]
    if missing and not renamed:
        there = ", ".join(one.name for one in found)
        raise RestoreError(
            f"there is no database '{missing[0]}' at the target; there are: {there}",
            hint="It was dropped before the target, or created after it: restore to another moment.",
        )


class _Server:
    """Runs psql as the server's user against the server of a restored data directory."""

    def __init__(self, prepared: PreparedRestore, role: str | None) -> None:
        self._prepared = prepared
        self._psql = str(prepared.binaries.program("psql"))
        self._names: tuple[str, ...] = () if prepared.chosen is None else prepared.chosen.names
        self._database = "postgres"
        options = "-c lock_timeout=60s -c default_transaction_read_only=off -c search_path=pg_catalog"
        if prepared.binaries.major >= _LOGIN_TRIGGERS_SINCE:
            options += " -c event_triggers=off"
        self._environment = {
            **os.environ,
            **({} if role is None else {"PGUSER": role}),
            **_address(prepared.request.pgdata),
            "PGOPTIONS": options,
            "PGCLIENTENCODING": "SQL_ASCII",
            "LC_ALL": "C",
        }

    def databases(self) -> list[_Database]:
        """Return all databases, asked in the first that answers; the later questions go there too.

        Raises: PostgresError.
        """
        first: PostgresError | None = None
        for name in ("postgres", "template1", *self._names):
            self._database = name
            try:
                values: list[dict[str, Any]] = json.loads(self.run(_LIST))
            except PostgresError as error:
                first = first or error
            else:
                return [_Database(one["oid"], one["name"], one["connects"]) for one in values]
        raise first or PostgresError("the restored server has no database")

    def require_content(self, one: _Database) -> None:
        """Refuse a database that was made as a copy of one without content. Raises: RestoreError."""
        if not one.connects:
            return
        try:
            self.run("SELECT 1", database=one.name)
        except PostgresError as error:
            if LEFT_OUT_WORD in error.message:
                raise RestoreError(
                    f"database '{one.name}' has no content: it was created after the base backup, with STRATEGY "
                    "FILE_COPY, from a database whose files were left out",
                    hint="Restore again, and name that database with --only-database too.",
                ) from error

    def run(self, sql: str, *, database: str | None = None, seconds: int = _CONNECT_SECONDS) -> str:
        """Run one statement and return its answer. Raises: PostgresError."""
        environment = {**self._environment, "PGDATABASE": database or self._database}
        try:
            done = subprocess.run(
                [self._psql, "--no-psqlrc", "--no-password", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=seconds,
                cwd="/",
                env=environment,
                **self._prepared.user.popen_options(),  # type: ignore[call-overload]
            )
        except OSError as error:
            raise PostgresError(f"'{self._psql}' cannot be started: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise PostgresError(f"the restored server did not answer within {seconds} s: {sql}") from error
        if done.returncode != 0:
            words = " ".join(done.stderr.decode("utf-8", "replace").split())
            raise PostgresError(f"the restored server refused: {words}", hint="Name a superuser with PGUSER.")
        answer: bytes = done.stdout
        return answer.decode("utf-8", "surrogateescape").strip()


def _address(pgdata: Path) -> dict[str, str]:
    """Return where the data directory's server listens: its socket's folder, else its first address.

    Raises: PostgresError where no server runs there.
    """
    try:
        lines = (pgdata / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        port, socket, address = lines[3], lines[4], lines[5]
    except (OSError, IndexError) as error:
        raise PostgresError(f"no server runs on '{pgdata}'") from error
    return {"PGPORT": port, "PGHOST": socket or address.replace("*", "localhost")}


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
