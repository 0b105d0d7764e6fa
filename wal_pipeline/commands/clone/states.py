"""Looks at the clones that stand, and changes nothing."""

from pathlib import Path

from wal_pipeline.commands.clone.folder import CloneFolder, clone_folders
from wal_pipeline.commands.clone.record import CloneCondition, CloneRecord, CloneState
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.postmaster import find_server


def clone_states(root: Path) -> tuple[CloneState, ...]:
    """Return the clones below ``root``, by name. Raises: RestoreError where that cannot be read."""
    return tuple(_state(folder) for folder in clone_folders(root))


def state_of(folder: CloneFolder, record: CloneRecord) -> CloneState:
    """Return how a clone with a record is now. Raises: PostgresError where its data directory cannot be read."""
    server = find_server(folder.pgdata(record.generation))
    condition = CloneCondition.READ_ONLY if record.read_only else CloneCondition.READ_WRITE
    pid = None if server is None else server.pid
    return CloneState.of(record, folder.path, folder.socket, CloneCondition.DOWN if server is None else condition, pid)


def _state(folder: CloneFolder) -> CloneState:
    try:
        record = folder.read()
        if record is None:
            return CloneState(folder.name, folder.path, CloneCondition.BUSY)
        return state_of(folder, record)
    except (RestoreError, PostgresError) as error:
        return CloneState(folder.name, folder.path, CloneCondition.UNREADABLE, notes=(error.message,))
