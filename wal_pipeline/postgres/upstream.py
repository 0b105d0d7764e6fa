"""Asks the server that a standby shall stream from who it is, by the replication protocol, as the standby will."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.session import error_text
from wal_pipeline.wal.lsn import Lsn

_CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 10
_SLOT_COMMAND_SINCE: Final = 150000


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server that WAL can be streamed from.

    ``flushed_lsn`` is up to where its WAL is on its disk, on ``timeline``. ``in_recovery``: it is a standby itself.
    ``has_slot`` is None where no slot was asked for, or the server cannot tell by this protocol.
    """

    system_identifier: int
    timeline: int
    flushed_lsn: Lsn
    in_recovery: bool
    major: int
    has_slot: bool | None


def ask_upstream(parameters: Mapping[str, Any], slot: str = "") -> Upstream:
    """Return who answers there. ``parameters`` are the connection by libpq's keywords.

    The commands are those of the replication protocol: IDENTIFY_SYSTEM, SHOW, READ_REPLICATION_SLOT. The role needs the
    right to replicate, and no database.

    Raises: PostgresError, without anything that is secret.
    """
    given = {
        "application_name": "wal-pipeline",
        "connect_timeout": _CONNECT_SECONDS,
        "tcp_user_timeout": _ANSWER_SECONDS * 1000,
        **{name: value for name, value in parameters.items() if name not in ("dbname", "replication")},
        "replication": "true",
        "client_encoding": "UTF8",
    }
    secret = str(parameters.get("password") or "")
    try:
        with psycopg.connect(**given, autocommit=True) as connection:
            return _ask(connection, slot)
    except psycopg.Error as error:
        raise PostgresError(error_text(error, secret)) from None  # libpq's texts may hold a secret


def _ask(connection: "psycopg.Connection[Any]", slot: str) -> Upstream:
    identity = connection.execute("IDENTIFY_SYSTEM").fetchone()
    recovery = connection.execute("SHOW in_hot_standby").fetchone()
    if identity is None or recovery is None:
        raise PostgresError("the server does not say who it is")
    version = connection.info.server_version
    has_slot = None
    if slot and version >= _SLOT_COMMAND_SINCE:
        row = connection.execute(f"READ_REPLICATION_SLOT {slot}".encode()).fetchone()
        has_slot = row is not None and row[0] is not None
    return Upstream(
        system_identifier=int(identity[0]),
        timeline=int(identity[1]),
        flushed_lsn=Lsn.parse(str(identity[2])),
        in_recovery=recovery[0] == "on",
        major=version // 10_000,
        has_slot=has_slot,
    )
