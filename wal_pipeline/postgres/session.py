"""Opens a session that depends on no setting of the server, its databases, its roles or libpq's variables.

What a value looks like on the wire follows from ``DateStyle``, ``client_encoding`` and other settings, which anyone may
change for a server, a database, a role or by ``PGDATESTYLE``, ``PGOPTIONS`` and so on. Each session sets all of them.
"""

import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import DiagnosticField

from wal_pipeline.errors import PostgresError, WalPipelineError
from wal_pipeline.host.own_command import this_command
from wal_pipeline.text import hidden

CONNECT_HINT: Final = (
    "Set WAL_PIPELINE_CONNINFO or PGHOST, PGPORT, PGUSER and PGPASSWORD (or a ~/.pgpass file) "
    "to those of a running server."
)
_ENCODING_HINT: Final = "Name a database in UTF8 with dbname=… in WAL_PIPELINE_CONNINFO: this one cannot take the name."
STATEMENT_SECONDS: Final = 30
_CONNECT_SECONDS: Final = 10
_GRACE_SECONDS: Final = 5.0
_LOST: Final = ("08", "57P")
_NO_LIMIT: Final = sys.maxsize
_LOST_AFTER_SECONDS: Final = 90
_KEEPALIVES: Final[Mapping[str, int]] = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
}
_PEER: Final = re.compile(r'Peer authentication failed|role ".*" does not exist')
_CANCELLED: Final = "57014"
_TEXT_TYPES: Final = ("text", "name", "varchar", "bpchar", '"char"', 0)  # 0: a type that psycopg does not know
# PostgreSQL takes settings and file names as bytes. In this encoding it converts and checks none of them, so that a
# path stays the path that it is, whatever the encoding of the database and of the names in it.
_ENCODING: Final = "SQL_ASCII"
_SETTINGS: Final[Mapping[str, str]] = {
    "search_path": "pg_catalog",  # first: a function of another schema must never be called
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "default_transaction_read_only": "off",
    "synchronous_commit": "local",  # no standby has to confirm our one small record
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
}
_SETTINGS_SINCE: Final[Mapping[str, tuple[int, str]]] = {
    "idle_session_timeout": (140000, "0"),
    "transaction_timeout": (170000, "0"),
}
T = TypeVar("T")
_log = logging.getLogger(__name__)


class _Text(Loader):
    """Reads text as UTF-8. A byte that is none becomes ``\\xNN``: a name may be of any encoding."""

    def load(self, data: Any) -> str:
        return readable(bytes(data))


@contextmanager
def open_session(
    parameters: Mapping[str, Any],
    purpose: str,
    *,
    limit_seconds: int = STATEMENT_SECONDS,
    connect_timeout_seconds: int = _CONNECT_SECONDS,
) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection in autocommit mode (ALTER SYSTEM needs it).

    ``purpose`` is what is done with it, such as ``reading the server's state``. Each statement may take
    ``limit_seconds``; a server that is stuck is left a little later, for it cancels nothing by itself.

    Raises: PostgresError, whatever the driver raised.
    """
    begun: list[float] = []
    with (
        _our_errors(parameters, purpose, limit_seconds, begun),
        _connect(parameters, connect_timeout_seconds, limit_seconds) as connection,
    ):
        begun.append(time.monotonic())
        with _cut_after(connection, limit_seconds + _GRACE_SECONDS):
            _set_up(connection, limit_seconds)
            yield connection


class KeptSession:
    """A session that stays open between two questions. It is for one thread."""

    def __init__(
        self,
        parameters: Mapping[str, Any],
        purpose: str,
        *,
        limit_seconds: int = STATEMENT_SECONDS,
        connect_timeout_seconds: int = _CONNECT_SECONDS,
    ) -> None:
        """Describe it; the first question connects. Each question may take ``limit_seconds``."""
        self._parameters = parameters
        self._purpose = purpose
        self._limit_seconds = limit_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a connection is there, which the server may have ended since."""
        return self._connection is not None

    def ask(self, question: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Return the answer to a question; connect first where there is no connection.

        After any error the connection is closed, and the next question makes a new one. Raises: PostgresError.
        """
        begun = [time.monotonic()] if self.is_open else []
        try:
            with _our_errors(self._parameters, self._purpose, self._limit_seconds, begun):
                connection = self._connection
                if connection is None:
                    connection = self._connection = _connect(
                        self._parameters, self._connect_timeout_seconds, self._limit_seconds
                    )
                    begun.append(time.monotonic())
                    with _cut_after(connection, self._limit_seconds + _GRACE_SECONDS):
                        _set_up(connection, self._limit_seconds)
                with _cut_after(connection, self._limit_seconds + _GRACE_SECONDS):
                    return question(connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, where one is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class LongSession:
    """One connection for as long as it is needed: it is never made anew, and no statement in it has a time limit.

    It may say nothing for hours. The kernel asks the other side meanwhile, so that no firewall forgets the connection
    and a dead host shows. It is for one thread at a time.
    """

    def __init__(self, parameters: Mapping[str, Any], purpose: str, *, connect_timeout_seconds: int) -> None:
        """Connect. Raises: PostgresError."""
        self._parameters = parameters
        self._purpose = purpose
        with _our_errors(parameters, purpose, _NO_LIMIT, []):
            given = {**_KEEPALIVES, **parameters}
            self._connection = _connect(given, connect_timeout_seconds, _LOST_AFTER_SECONDS)
        try:
            self.ask(lambda connection: _set_up(connection, 0))
        except BaseException:
            self.close()
            raise

    def ask(self, question: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Return the answer to a question, however long it takes. Raises: PostgresError."""
        with _our_errors(self._parameters, self._purpose, _NO_LIMIT, [time.monotonic()]):
            return question(self._connection)

    def close(self) -> None:
        """End the connection, and with it all that the server keeps for it."""
        self._connection.close()


@contextmanager
def _our_errors(parameters: Mapping[str, Any], purpose: str, limit_seconds: int, begun: list[float]) -> Iterator[None]:
    """Translate whatever the driver raises. ``begun`` holds when the connection was made; empty before that."""
    secret = str(parameters.get("password") or os.environ.get("PGPASSWORD") or "")
    try:
        yield
    except WalPipelineError:
        raise
    except psycopg.Error as error:
        waited = time.monotonic() - begun[0] if begun else None
        raise _translated(error, purpose, limit_seconds, waited, secret) from None  # libpq's texts may hold a secret
    except Exception as error:  # noqa: BLE001 - psycopg raises NotImplementedError, UnicodeError and others too
        _log.debug("unexpected exception while %s", purpose, exc_info=error)
        raise PostgresError(
            f"PostgreSQL's answer cannot be read ({purpose}): {hidden(f'{type(error).__name__}: {error}', [secret])}",
            hint="This is a fault of this program or its driver: please report it, with the server's version.",
        ) from None


def readable(text: bytes) -> str:
    """Return bytes of the server as text: UTF-8, with each other byte as ``\\xNN``."""
    return text.decode("utf-8", "backslashreplace")


def error_text(error: psycopg.Error, secret: str = "") -> str:
    """Return PostgreSQL's message as one line, with its detail where the server sent one, and without the secret."""
    parts = [_field(error, DiagnosticField.MESSAGE_PRIMARY) or str(error)]
    parts.append(_field(error, DiagnosticField.MESSAGE_DETAIL))
    return " ".join(" ".join(hidden(part, [secret]).split()) for part in parts if part)


def _field(error: psycopg.Error, field: DiagnosticField) -> str:
    found = None if error.pgresult is None else error.pgresult.error_field(field)
    return "" if found is None else readable(found)


def _connect(
    parameters: Mapping[str, Any], connect_timeout_seconds: int, limit_seconds: int
) -> psycopg.Connection[Any]:
    given: dict[str, Any] = {
        "application_name": "wal-pipeline",
        "connect_timeout": connect_timeout_seconds,
        "tcp_user_timeout": limit_seconds * 1000,
        **parameters,
        "client_encoding": _ENCODING,
    }
    return psycopg.connect(**given, autocommit=True)


def _set_up(connection: psycopg.Connection[Any], limit_seconds: int) -> None:
    for name in _TEXT_TYPES:
        connection.adapters.register_loader(name, _Text)
    version = connection.info.server_version
    newer = {name: value for name, (since, value) in _SETTINGS_SINCE.items() if version >= since}
    # SET needs no snapshot, so it works where the defaults are such that no query would.
    lines = [f"SET {name} = '{value}'" for name, value in {**_SETTINGS, **newer}.items()]
    connection.execute("; ".join([_time_limit(limit_seconds), *lines]).encode())


def limit_query_time(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Let the server cancel each later statement of this session after so many seconds. Raises: psycopg.Error."""
    connection.execute(_time_limit(seconds).encode())


def _time_limit(seconds: float) -> str:
    return f"SET statement_timeout = {round(seconds * 1000)}"


def _peer_hint(text: str) -> str | None:
    """Say what to type where the server takes a local user for the role of the same name, and that is not the one."""
    if not _PEER.search(text):
        return None
    command = this_command()
    again = "Run this as the server's user" if command is None else f"As the server's user: sudo -u postgres {command}"
    return (
        "Through its socket PostgreSQL usually takes a user for the role of the same name (peer); PGUSER or "
        f"WAL_PIPELINE_CONNINFO names another one. {again}"
    )


@contextmanager
def _cut_after(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Shut the connection's socket after so many seconds: a process that waits for a disk cannot be cancelled."""
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        timer = threading.Timer(seconds, _shut, (ours,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut(ours: socket.socket) -> None:
    try:
        ours.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        _log.debug("the connection was closed already: %s", error)


def _translated(
    error: psycopg.Error, purpose: str, limit_seconds: int, waited_seconds: float | None, secret: str
) -> PostgresError:
    """Return our error. ``waited_seconds`` is None where no connection was made."""
    text = error_text(error, secret)
    state = error.sqlstate or ""
    if waited_seconds is None:
        return PostgresError(f"cannot connect to PostgreSQL: {text}", hint=_peer_hint(text) or CONNECT_HINT)
    if waited_seconds >= limit_seconds and (state in ("", _CANCELLED)):
        return PostgresError(
            f"PostgreSQL did not finish within {limit_seconds} s: {purpose}",
            hint=f"pg_stat_activity shows what the server waits for; {purpose} may take {limit_seconds} s.",
        )
    if state == _CANCELLED:
        return PostgresError(f"a statement was cancelled on the server ({purpose}): {text}", hint="Try it again.")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return PostgresError(
            f"PostgreSQL refused: {text}", hint="Connect as a superuser, or grant the role what it lacks."
        )
    if isinstance(error, psycopg.OperationalError) and (not state or state.startswith(_LOST)):
        return PostgresError(
            f"the connection to PostgreSQL was lost ({purpose}): {text}",
            hint="The server's log says whether it was stopped or crashed; the next try connects again.",
        )
    hint = _ENCODING_HINT if isinstance(error, psycopg.errors.CharacterNotInRepertoire) else None
    return PostgresError(f"PostgreSQL answered: {text} ({purpose})", hint=hint)
