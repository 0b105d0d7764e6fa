"""Compares the last commit that a drill's server reported with the one that the archive's records predict."""

from datetime import datetime
from pathlib import Path

from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.drill.choice import DrillTarget
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.reached import find_last_transaction
from wal_pipeline.commands.restore.start import RecoveryResult


def difference_from_prediction(
    prepared: PreparedRestore,
    target: DrillTarget,
    predicted: tuple[datetime, ...],
    recovery: RecoveryResult,
    folder: Path,
) -> str | None:
    """Return how the server's last commit differs from the predicted ones; None where it is one of them or explained.

    ``folder`` is made for the segments that may explain it. Raises: WalPipelineError, OSError.
    """
    reached_at = recovery.last_commit_at
    if not predicted or reached_at in predicted or _is_explained(prepared, target, predicted, recovery, folder):
        return None
    reached = "no commit" if reached_at is None else reached_at.isoformat(" ")
    return f"the last commit replayed is {reached}, expected {predicted[0].isoformat(' ')}"


def _is_explained(
    prepared: PreparedRestore,
    target: DrillTarget,
    predicted: tuple[datetime, ...],
    recovery: RecoveryResult,
    folder: Path,
) -> bool:
    """Return whether the WAL itself tells why the server reports another moment than the last commit's.

    PostgreSQL counts a rollback as a completed transaction, and a commit before its redo point not at all.
    """
    source = WalSource(prepared.layout, prepared.stores, prepared.identities)
    found = find_last_transaction(
        RecoveryWal(source, target.limits(prepared.plan)).fetch,
        target.choice,
        target.manifest.wal_segment_size,
        recovery.redo_lsn or target.manifest.start_lsn,
        pg_waldump=prepared.binaries.program("pg_waldump"),
        folder=folder,
    )
    return found.completed_at == recovery.last_commit_at and found.commit_at in (None, *predicted)
