"""Ends clones: one whose time is over or that is stopped, and what a killed command or a restart left."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from wal_pipeline.archive.alerts import Observation
from wal_pipeline.commands.alerts.clones import end_observation
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.beside.scratch_server import SOCKET_FOLDER
from wal_pipeline.commands.clone.folder import CloneBusyError, CloneFolder, clone_folders
from wal_pipeline.commands.clone.keeper_lock import is_kept
from wal_pipeline.commands.clone.record import CloneCondition, CloneRecord, CloneState
from wal_pipeline.commands.clone.server import CloneAddress, connected_sessions
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.postmaster import find_server
from wal_pipeline.text import counted

_ENDED: Final = "ended"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CloneEnder:
    """Ends the clones below ``root``. ``alert`` takes the cause of one that reached its end with somebody connected."""

    root: Path
    cluster: str
    clock: Callable[[], datetime]
    audit: AuditLog
    alert: Callable[[Observation], object] = lambda _: None

    def stop(self, name: str) -> CloneState:
        """End a clone now, whatever it is doing for others. Raises: RestoreError."""
        folder = CloneFolder(self.root, name)
        with folder.locked():
            return self._end(folder, "stopped")

    def end_if_over(self, name: str) -> bool:
        """End a clone whose time is over; wait for a command that changes it. Raises: RestoreError."""
        folder = CloneFolder(self.root, name)
        with folder.locked(wait=True):
            record = folder.read()
            if record is None or self.clock() < record.ends_at:
                return False
            self._end(folder, _ENDED)
        return True

    def clear(self, start_keeper: Callable[[CloneFolder], None] | None = None) -> tuple[str, ...]:
        """Remove what is over or was left, and return one sentence for each clone that went or could not go.

        Left are: a clone that was killed while it was made, and one with neither keeper nor server, as after a restart
        of the machine. One whose server runs without a keeper goes on until its end, with ``start_keeper``.
        """
        said = []
        for folder in clone_folders(self.root):
            try:
                said += self._clear(folder, start_keeper)
            except CloneBusyError:
                continue
            except RestoreError as error:
                said.append(f"clone '{folder.name}': {error.message}")
        for words in said:
            _log.warning(words)
        return tuple(said)

    def _clear(self, folder: CloneFolder, start_keeper: Callable[[CloneFolder], None] | None) -> list[str]:
        with folder.locked():
            record = folder.read()
            if record is None:
                self._end(folder, "removed", message="it was never finished")
                return [f"clone '{folder.name}' was never finished and is removed"]
            if self.clock() >= record.ends_at:
                self._end(folder, _ENDED)
                return [
                    f"clone '{folder.name}' was over since {record.ends_at.isoformat(' ', 'seconds')}: it is removed"
                ]
            if is_kept(folder):
                return []
            if find_server(folder.pgdata(record.generation)) is None:
                self._end(folder, "removed", message="neither its server nor its keeper runs")
                return [f"clone '{folder.name}' had neither server nor keeper any more and is removed"]
        if start_keeper is not None:
            start_keeper(folder)
        return []

    def _end(self, folder: CloneFolder, result: str, **details: object) -> CloneState:
        """Stop and remove a clone, of which we hold the lock. The audit log names who is connected to it."""
        record, connected = _read(folder), list[str]()
        state = CloneState(folder.name, folder.path, CloneCondition.UNREADABLE)
        if record is not None:
            state = CloneState.of(record, folder.path, folder.socket, CloneCondition.DOWN, None)
            connected = _connected(record, folder)
            if connected:
                details |= {"connected": connected}
                words = f"clone '{folder.name}' ends while {counted(len(connected), 'session')} of it are connected"
                _log.warning("%s: %s", words, ", ".join(connected))
            details |= {"target": record.target, "made_at": record.made_at, "ends_at": record.ends_at}
        with self.audit.work("clone", self.cluster, name=folder.name) as line:
            line.update(details)
            folder.remove()
            line["result"] = result
        if connected and result == _ENDED:
            self.alert(end_observation(folder.name, connected, self.clock()))
        return state


def _read(folder: CloneFolder) -> CloneRecord | None:
    try:
        return folder.read()
    except RestoreError as error:
        _log.warning("clone '%s' is removed though %s", folder.name, error.message)
        return None


def _connected(record: CloneRecord, folder: CloneFolder) -> list[str]:
    """Return who is connected; nobody where the server does not answer."""
    try:
        if find_server(folder.pgdata(record.generation)) is None:
            return []
        socket = folder.generation(record.generation) / SOCKET_FOLDER
        return connected_sessions(CloneAddress(socket, record.port, record.role, record.database))
    except PostgresError as error:
        _log.info("clone '%s' does not tell who is connected: %s", folder.name, error.message)
        return []
