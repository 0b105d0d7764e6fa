"""Asks the server for its tablespaces, their sizes and its clock, which a base backup needs beside pg_basebackup."""

import logging
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.conninfo import make_conninfo

from wal_pipeline.errors import PostgresError, SettingsError
from wal_pipeline.postgres.server import PostgresServer

_TABLESPACES: Final = """
SELECT oid::bigint, pg_tablespace_location(oid) FROM pg_tablespace
WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid
"""
_FORM_VARIABLES: Final = ("PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGGEQO")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerTablespace:
    """A tablespace other than ``pg_default`` and ``pg_global``; ``location`` is its folder on the server."""

    oid: int
    location: str


class BackupServer(PostgresServer):
    """The server that a base backup is taken from."""

    def tablespaces(self) -> tuple[ServerTablespace, ...]:
        """Return the tablespaces outside the data directory, by oid. Raises: PostgresError."""
        with self._session("reading the tablespaces") as connection:
            return tuple(ServerTablespace(*row) for row in connection.execute(_TABLESPACES).fetchall())

    def size_bytes(self) -> int | None:
        """Return the bytes of all tablespaces, an estimate of what a base backup reads.

        None, with a warning in the log, where the server cannot tell it in time or the role may not see them all.
        """
        try:
            with self._session("measuring the tablespaces") as connection:
                row = connection.execute("SELECT sum(pg_tablespace_size(oid))::bigint FROM pg_tablespace").fetchone()
        except PostgresError as error:
            _log.warning("the size of the cluster is not known: %s", error.message)
            return None
        return None if row is None else int(row[0])

    def clock(self) -> datetime:
        """Return the server's time. Raises: PostgresError."""
        with self._session("reading the server's clock") as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        if row is None:
            raise PostgresError("PostgreSQL returned no row for its time")
        moment: datetime = row[0]
        return moment

    def program_conninfo(self) -> str:
        """Return the connection string for a program's command line: without the password, which ``ps`` would show.

        Raises: SettingsError for a key's password, which libpq reads from no environment variable.
        """
        if self._parameters.get("sslpassword"):
            raise SettingsError(
                "the connection string has 'sslpassword', which pg_basebackup's command line would show",
                hint="Put it into a service file (~/.pg_service.conf) and connect with service=NAME.",
            )
        return make_conninfo(**{name: value for name, value in self._parameters.items() if name != "password"})

    def program_environment(self) -> dict[str, str]:
        """Return the environment for a PostgreSQL program: ours, with the password, and messages in English.

        libpq's variables for the form of values are left out: a wrong one would only keep the program from connecting.
        """
        kept = {name: value for name, value in os.environ.items() if name not in _FORM_VARIABLES}
        environment = {**kept, "LC_ALL": "C"}
        password = self._parameters.get("password")
        return {**environment, "PGPASSWORD": str(password)} if password else environment
