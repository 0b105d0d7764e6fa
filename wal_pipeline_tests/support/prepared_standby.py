"""Prepares restores of standbys without any store: a plan, and what is known of the machine."""

import os
from datetime import UTC, datetime
from pathlib import Path

from testbed.postgres_install import PostgresInstall, postgres_user
from wal_pipeline.archive.records import BackupKind, BaseBackup, CommitTimes, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.restore_plan import plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest
from wal_pipeline.commands.restore.standby.request import StandbyRequest
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, segment_name
from wal_pipeline_tests.support.restore_archive import LAYOUT

_SIZE = 1 << 24
_AT = datetime(2026, 11, 1, 10, tzinfo=UTC)


def prepare_standby(
    install: PostgresInstall,
    standby: StandbyRequest,
    *,
    pgdata: Path = Path("/srv/pgdata"),
    config_file: Path | None = None,
    system_identifier: int = 7,
    last: int = 3,
) -> PreparedRestore:
    """Return a restore of a standby, with segments of 16 MiB, 1 to ``last``, on timeline 1 of a store 'r2'."""
    names = [segment_name(1, number, _SIZE) for number in range(1, last + 1)]
    files = [
        WalFile(
            *(name.name, FileKind.SEGMENT, system_identifier, 1, _SIZE, "0" * 64, _AT, _SIZE, install.version),
            *(name.start_lsn(_SIZE), name.end_lsn(_SIZE), CommitTimes.KNOWN, _AT, _AT),
        )
        for name in names
    ]
    backup = BaseBackup(
        *(f"20261101T100000Z-{names[0].name}", BackupKind.FULL, None, system_identifier, 1),
        *(Lsn(_SIZE + 40), Lsn(_SIZE + 400), _AT, _AT, _SIZE, install.version * 10_000, "label", 1, 1),
    )
    contents = ArchiveContents.of(
        system_identifier,
        files=files,
        copies={"r2": [file.name for file in files]},
        backups=[HeldBackup(backup, frozenset(["r2"]))],
    )
    user = postgres_user()
    return PreparedRestore(
        request=RestoreRequest(pgdata, standby=standby, config_file=config_file),
        plan=plan_restore(contents, RecoveryTarget()),
        chain=(),
        stores=(),
        silent=(),
        layout=LAYOUT,
        identities=(),
        moves=(),
        emptied=(),
        encrypted=False,
        disk=(),
        user=ServerUser(user.uid, user.gid) if os.geteuid() == 0 else ServerUser(os.geteuid(), os.getegid()),
        binaries=Binaries(install.bin_folder, install.version),
        notes=(),
        plan_seconds=0.0,
    )
