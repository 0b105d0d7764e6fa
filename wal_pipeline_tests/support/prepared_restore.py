"""Makes a prepared restore of three segments, for tests that start no server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from wal_pipeline.archive.records import BackupKind, BaseBackup, CommitTimes, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.restore_plan import RestorePlan, plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, segment_name
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.restore_archive import LAYOUT, WatchedStore

SEGMENT_SIZE = 1 << 24
_BEGIN = datetime(2026, 11, 1, 10, tzinfo=UTC)


def _segment(number: int) -> WalFile:
    at = _BEGIN + timedelta(minutes=number)
    return WalFile(
        *(segment_name(1, number, SEGMENT_SIZE).name, FileKind.SEGMENT, 7, 1, SEGMENT_SIZE, "0" * 64, at),
        *(SEGMENT_SIZE, 18, Lsn(number * SEGMENT_SIZE), Lsn((number + 1) * SEGMENT_SIZE), CommitTimes.KNOWN, at, at),
    )


def planned_to(target: RecoveryTarget) -> RestorePlan:
    """Return the plan of a restore to a target, from a base backup in the first of three segments on r2 and b2."""
    files = [_segment(number) for number in (1, 2, 3)]
    begin = Lsn(SEGMENT_SIZE + 40)
    backup = BaseBackup(
        *(f"20261101T100000Z-{files[0].name}", BackupKind.FULL, None, 7, 1, begin, Lsn(SEGMENT_SIZE + 400)),
        *(_BEGIN, _BEGIN + timedelta(seconds=5), SEGMENT_SIZE, 180000, "label", 1, 1),
    )
    names, stores = [file.name for file in files], ("r2", "b2")
    contents = ArchiveContents.of(
        7, files=files, copies=dict.fromkeys(stores, names), backups=[HeldBackup(backup, frozenset(stores))]
    )
    return plan_restore(contents, target)


def prepared_restore(folder: Path, stores: tuple[str, ...]) -> PreparedRestore:
    """Return a restore to the end, from stores that hold nothing any more."""
    return PreparedRestore(
        request=RestoreRequest(Path("/srv/pgdata")),
        plan=planned_to(RecoveryTarget()),
        chain=(make_manifest(),),
        stores=tuple(WatchedStore(name, folder / name) for name in stores),
        silent=(),
        layout=LAYOUT,
        identities=(),
        moves=(),
        emptied=(),
        encrypted=False,
        disk=(),
        user=ServerUser(1, 1),
        binaries=Binaries(Path("/usr/bin"), 18),
        notes=(),
        plan_seconds=0.0,
    )
