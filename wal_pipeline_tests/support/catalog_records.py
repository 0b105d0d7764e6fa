"""Makes records for a catalog."""

from datetime import UTC, datetime, timedelta

from wal_pipeline.archive.records import BackupKind, BaseBackup, Codec, CommitTimes, Copy, CopyStatus, Encoding, WalFile
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name, segment_name

SIZE = 16 << 20
SYSTEM_IDENTIFIER = 2**64 - 3
NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


def segment(number: int = 1, *, system_identifier: int = SYSTEM_IDENTIFIER, sha256: str = "a" * 64) -> WalFile:
    """Return the record of a segment that reached the spool ``number`` seconds after noon."""
    name = segment_name(1, number, SIZE)
    return WalFile(
        name=name.name,
        kind=name.kind,
        system_identifier=system_identifier,
        timeline=1,
        size_bytes=SIZE,
        sha256=sha256,
        spooled_at=NOON + timedelta(seconds=number % 86_400),
        wal_segment_size=SIZE,
        server_major=18,
        start_lsn=name.start_lsn(SIZE),
        end_lsn=name.end_lsn(SIZE),
        commit_times=CommitTimes.KNOWN,
        first_commit_at=NOON,
        last_commit_at=NOON + timedelta(microseconds=1),
    )


def history(timeline: int = 2) -> WalFile:
    """Return the record of a timeline history file."""
    name = require_file_name(f"{timeline:08X}.history")
    return WalFile(name.name, name.kind, SYSTEM_IDENTIFIER, timeline, 42, "b" * 64, NOON)


def copy_of(file: WalFile, store: str = "r2", status: CopyStatus = CopyStatus.VERIFIED) -> Copy:
    """Return the record of a file's copy; a failed one has no encoding."""
    verified = status is CopyStatus.VERIFIED
    return Copy(
        name=file.name,
        system_identifier=file.system_identifier,
        store=store,
        status=status,
        object_key=f"main/{file.system_identifier}/wal/{file.name}.zst",
        encoding=Encoding(Codec.ZSTD, False, 1000, "c" * 64, "d" * 32, 0.25) if verified else None,
        tries=1 if verified else 3,
        last_error=None if verified else f"{store}: connection refused",
        verified_at=NOON + timedelta(minutes=1) if verified else None,
        store_seconds=0.5 if verified else None,
        lag_seconds=1.5 if verified else None,
    )


def base_backup(backup_id: str = "20261122T120000Z-000000010000000000000002", days: int = 0) -> BaseBackup:
    """Return the record of a full base backup."""
    return BaseBackup(
        backup_id=backup_id,
        kind=BackupKind.FULL,
        parent_id=None,
        system_identifier=SYSTEM_IDENTIFIER,
        timeline=1,
        start_lsn=Lsn(2**64 - 2),
        stop_lsn=Lsn(2**64 - 1),
        started_at=NOON + timedelta(days=days),
        finished_at=NOON + timedelta(days=days, minutes=5),
        wal_segment_size=SIZE,
        server_version=180006,
        label="wal-pipeline",
        size_bytes=5_000_000_000,
        stored_size_bytes=1_000_000_000,
    )
