"""Sets a clone's server apart from its original, and asks it where it is and who is connected."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from wal_pipeline.commands.beside.scratch_server import SOCKET_FOLDER
from wal_pipeline.commands.clone.ports import LOOPBACK
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import ServerIsolation, restored_server
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.environment import plain_environment
from wal_pipeline.postgres.session import open_session
from wal_pipeline.wal.lsn import Lsn

_HBA: Final = "pg_hba.conf"
_ON_THE_SOCKET: Final = "local all all trust\n"  # the socket's folder lets in the server's user and root alone
_ON_LOOPBACK: Final = f"host all all {LOOPBACK}/32 md5\n"  # by the role's password, also one that is kept as SCRAM
_SECONDS: Final = 15
_POSITION: Final = (
    "SELECT pg_last_wal_replay_lsn()::text, extract(epoch FROM pg_last_xact_replay_timestamp())::text, "
    "txid_snapshot_xmax(txid_current_snapshot())::text WHERE pg_is_in_recovery()"
)
_CONNECTED: Final = (
    "SELECT coalesce(usename, '?') || ' in ' || coalesce(datname, '?') || coalesce(nullif(' (' || application_name || "
    "')', ' ()'), '') FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
    "ORDER BY backend_start"
)


@dataclass(frozen=True, slots=True)
class CloneAddress:
    """Where a clone's server is asked: the folder of its socket, its port, a role and a database of it."""

    socket: Path
    port: int
    role: str
    database: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The connection's parameters."""
        return {"host": str(self.socket), "port": self.port, "user": self.role, "dbname": self.database}


@dataclass(frozen=True, slots=True)
class ClonePosition:
    """Where a paused clone is: the last record and commit that it replayed, and the next transaction id (64 bits)."""

    lsn: Lsn
    commit_at: datetime | None
    next_xid: int


def clone_isolation(
    prepared: PreparedRestore, place: Path, *, port: int, listens: bool, config_file: Path | None, wal_folder: Path
) -> ServerIsolation:
    """Return how a clone's server is set apart: as any copy, with its own socket, port and access rules in ``place``.

    On its socket it lets in whoever may enter the folder: the server's user and root. Where it ``listens``, a role
    gets in from this machine with its password. The server's process gets none of our credentials.

    Raises: RestoreError, PostgresError, OSError.
    """
    socket, hba = place / SOCKET_FOLDER, place / _HBA
    if not socket.is_dir():
        socket.mkdir(mode=0o700)
    hba.write_text(_ON_THE_SOCKET + _ON_LOOPBACK, encoding="ascii")
    hba.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(socket, prepared.user.uid, prepared.user.gid)
    own = {
        "listen_addresses": LOOPBACK if listens else "",
        "unix_socket_directories": str(socket),
        "unix_socket_group": "",
        "port": str(port),
        "hba_file": str(hba),
        "ssl": "off",
    }
    return replace(restored_server(prepared, own, config_file, (wal_folder,)), environment=plain_environment())


def restarted(settings: Mapping[str, str], recovery: Mapping[str, str], wal_folder: Path) -> ServerIsolation:
    """Return the isolation of a clone's server that is started again with other recovery settings.

    They come last, in their order: PostgreSQL takes an empty target after the chosen one for a second target.
    """
    kept = {name: value for name, value in settings.items() if name not in recovery}
    return ServerIsolation({**kept, **recovery}, plain_environment(), (wal_folder,))


def ask_position(address: CloneAddress) -> ClonePosition | None:
    """Return where a paused clone is; None where it is not in recovery. Raises: PostgresError."""
    found = _rows(address, "looking where a clone is", _POSITION)
    if not found or found[0][0] is None:
        return None
    lsn, epoch, next_xid = found[0]
    commit_at = None if epoch is None else datetime.fromtimestamp(float(epoch)).astimezone()
    return ClonePosition(Lsn.parse(lsn), commit_at, int(next_xid))


def has_ended(address: CloneAddress, full_xid: int) -> bool:
    """Return whether a transaction has ended in a clone, or is so old that it has. Raises: PostgresError."""
    [[status]] = _rows(address, "looking whether a transaction has ended", f"SELECT pg_xact_status('{full_xid:d}')")
    return bool(status != "in progress")


def connected_sessions(address: CloneAddress) -> list[str]:
    """Return who is connected to a clone, in a person's words. Raises: PostgresError."""
    return [str(row[0]) for row in _rows(address, "looking who is connected", _CONNECTED)]


def _rows(address: CloneAddress, purpose: str, query: str) -> list[Any]:
    try:
        with open_session(
            address.parameters, purpose, limit_seconds=_SECONDS, connect_timeout_seconds=_SECONDS
        ) as session:
            return session.execute(query.encode()).fetchall()
    except psycopg.Error as error:
        raise PostgresError(f"the clone's server does not answer ({purpose}): {error}") from None
