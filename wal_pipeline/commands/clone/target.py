"""Decides where a paused clone's recovery stops, and whether another moment lies ahead of it."""

import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal, limits_of
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.clone.server import ClonePosition
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.last_record import read_last_record
from wal_pipeline.wal.names import require_file_name

_MOST_LOOKED_AT: Final = 8  # segments back from the last, in each of which no whole record ends
_XIDS: Final = 2**32


def last_record_target(prepared: PreparedRestore) -> RecoveryTarget:
    """Return the last record of a plan as a target: at the end of the archive PostgreSQL opens, it cannot pause there.

    Raises: RestoreError where no record is found, WalPipelineError where the WAL cannot be read.
    """
    plan = prepared.plan
    wal = RecoveryWal(WalSource(prepared.layout, prepared.stores, prepared.identities), limits_of(plan))
    after: list[str] = []
    with tempfile.TemporaryDirectory(prefix="wal-pipeline-clone-") as folder:
        for file in reversed(plan.wal[-_MOST_LOOKED_AT:]):
            fetched = wal.fetch(require_file_name(file.name))
            if fetched is None:
                break
            (Path(folder) / file.name).write_bytes(fetched.data)
            pair = [file.name, *(name for name in after[:1] if name[:8] == file.name[:8])]
            lsn = read_last_record(prepared.binaries.program("pg_waldump"), Path(folder), pair)
            if lsn is not None:
                return RecoveryTarget(TargetKind.LSN, lsn=lsn, timeline=plan.timeline)
            after = [file.name]
    raise RestoreError(
        "the last record of the archived WAL is not found, at which a read-only clone would pause",
        hint="Name a moment with --to-time or --to-lsn, or leave out --read-only.",
    )


def lies_ahead(target: RecoveryTarget, position: ClonePosition, has_ended: Callable[[int], bool]) -> bool:
    """Return whether a target surely lies ahead of where a clone has paused.

    ``has_ended`` tells whether a transaction (of 64 bits) has ended there. Nobody knows where a restore point is.
    """
    match target:
        case RecoveryTarget(kind=TargetKind.LSN, lsn=lsn) if lsn is not None:
            return lsn > position.lsn
        case RecoveryTarget(at=datetime() as at, inclusive=inclusive):
            commit_at = position.commit_at
            return commit_at is not None and (commit_at <= at if inclusive else commit_at < at)
        case RecoveryTarget(xid=int() as xid):
            ahead = (xid - position.next_xid) % _XIDS
            return ahead < _XIDS // 2 or not has_ended(position.next_xid - _XIDS + ahead)
        case _:
            return False
