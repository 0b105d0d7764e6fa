"""Makes measured restores for tests."""

from datetime import UTC, datetime

from wal_pipeline.archive.restore_time.measure import MeasuredBy, MeasuredRestore, RestorePhase, RestoreWork

MEASURED_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
MIB = 1 << 20


def measured_drill(
    host: str,
    *,
    stores: tuple[str, ...] = ("r2",),
    at: datetime = MEASURED_AT,
    download_mib: float = 100.0,
    replay_mib: float = 10.0,
) -> MeasuredRestore:
    """Return a drill of 1000 MiB and 100 MiB of WAL. ``download_mib`` and ``replay_mib`` are MiB a second."""
    work = RestoreWork(stores, 1000 * MIB, 4000 * MIB, 100 * MIB, combined_bytes=4000 * MIB)
    seconds = {
        RestorePhase.PLAN: 1.0,
        RestorePhase.DOWNLOAD: 1000 / download_mib,
        RestorePhase.COMBINE: 20.0,
        RestorePhase.VERIFY: 8.0,
        RestorePhase.FINISH: 4.0,
        RestorePhase.START: 1.0,
        RestorePhase.REPLAY: 100 / replay_mib,
        RestorePhase.OPEN: 1.0,
    }
    return MeasuredRestore(host, MeasuredBy.DRILL, at, work, seconds)
