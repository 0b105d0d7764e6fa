"""What a recovery reached, compared with its plan."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.records import BackupKind, BaseBackup, CommitTimes, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.recovery.restore_plan import plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest
from wal_pipeline.commands.restore.reached import require_reached
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.postgres.replay_progress import RecoveryState
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, segment_name
from wal_pipeline_tests.support.restore_archive import LAYOUT, WatchedStore

SIZE = 1 << 24
BEGIN = datetime(2026, 11, 1, 10, tzinfo=UTC)
LOG = Path("/var/log/recovery.log")


def at(seconds: float) -> datetime:
    """Return a time after the beginning."""
    return BEGIN + timedelta(seconds=seconds)


def segment(number: int, first: float, last: float) -> WalFile:
    """Return the record of a segment with its commits' times."""
    return WalFile(
        *(segment_name(1, number, SIZE).name, FileKind.SEGMENT, 7, 1, SIZE, "0" * 64, at(0), SIZE, 18),
        *(Lsn(number * SIZE), Lsn((number + 1) * SIZE), CommitTimes.KNOWN, at(first), at(last)),
    )


FILES = [segment(1, -20, -10), segment(2, 10, 20), segment(3, 30, 40)]
BACKUP = BaseBackup(
    *(f"20261101T100000Z-{FILES[0].name}", BackupKind.FULL, None, 7, 1, Lsn(SIZE + 40), Lsn(SIZE + 400)),
    *(at(-5), at(0), SIZE, 180000, "label", 1, 1),
)
CONTENTS = ArchiveContents.of(
    7, files=FILES, copies={"r2": [file.name for file in FILES]}, backups=[HeldBackup(BACKUP, frozenset(["r2"]))]
)
END = Lsn(4 * SIZE - 100)


@pytest.fixture
def prepared(tmp_path: Path, postgres18: PostgresInstall) -> PreparedRestore:
    """A restore to the end, whose store has none of the WAL any more."""
    return PreparedRestore(
        request=RestoreRequest(Path("/srv/pgdata")),
        plan=plan_restore(CONTENTS, RecoveryTarget()),
        chain=(),
        stores=(WatchedStore("r2", tmp_path / "r2"),),
        silent=(),
        layout=LAYOUT,
        identities=(),
        moves=(),
        emptied=(),
        encrypted=False,
        disk=(),
        user=ServerUser(1, 1),
        binaries=Binaries(postgres18.bin_folder, 18),
        notes=(),
        plan_seconds=0.0,
    )


def check(prepared: PreparedRestore, target: RecoveryTarget, lsn: Lsn | None, commit_at: datetime | None) -> None:
    """Compare an open server's end with the plan for a target."""
    plan = plan_restore(CONTENTS, target)
    result = RecoveryResult(RecoveryState.OPEN, lsn, commit_at, 2, None, 3, {}, LOG, 1)
    require_reached(replace(prepared, plan=plan), result)


def to_time(seconds: float) -> RecoveryTarget:
    """Return a target by time."""
    return RecoveryTarget(kind=TargetKind.TIME, at=at(seconds))


def test_an_end_within_the_bounds_is_right(prepared: PreparedRestore) -> None:
    """Exact where the plan is exact; the end of the archive may have moved on."""
    check(prepared, RecoveryTarget(), END, at(40))
    check(prepared, RecoveryTarget(), Lsn(5 * SIZE), at(55))
    check(prepared, to_time(40), END, at(40))
    check(prepared, to_time(35), END, at(30))
    check(prepared, RecoveryTarget(kind=TargetKind.LSN, lsn=Lsn(3 * SIZE)), Lsn(3 * SIZE + 40), at(20))
    check(prepared, RecoveryTarget(kind=TargetKind.IMMEDIATE), Lsn(SIZE + 400), at(1))


def test_a_server_that_does_not_tell_is_not_judged(prepared: PreparedRestore) -> None:
    """Shut down at its target, it has said no LSN."""
    result = RecoveryResult(RecoveryState.SHUT_DOWN, None, None, None, "recovery stopping", 3, {}, LOG, None)
    require_reached(prepared, result)


def test_a_recovery_past_the_bound_is_wrong(prepared: PreparedRestore) -> None:
    """The whole message: what was reached, what was planned, and what to do now."""
    with pytest.raises(RestoreError) as caught:
        check(prepared, to_time(40), Lsn(4 * SIZE + 40), at(41))
    assert str(caught.value) == (
        "the recovery in '/srv/pgdata' did not end where it was planned to: it replayed WAL up to 0/4000028, past "
        "'000000010000000000000003', the last segment of the plan\n"
        "HINT: Do not let anyone use this server, which is open: look into its log '/var/log/recovery.log', stop it, "
        "and restore again."
    )


@pytest.mark.parametrize(
    ("target", "lsn", "commit_at", "words"),
    [
        (RecoveryTarget(), Lsn(2 * SIZE), at(20), "the last commit replayed is 2026-11-01 10:00:20+00:00, expected"),
        (RecoveryTarget(), Lsn(2 * SIZE), None, "the last commit replayed is no commit, expected not before"),
        (to_time(35), END, at(40), "the last commit replayed is 2026-11-01 10:00:40+00:00, expected"),
        (to_time(35), Lsn(SIZE), at(10), "the last commit replayed is 2026-11-01 10:00:10+00:00, expected"),
        (
            RecoveryTarget(kind=TargetKind.LSN, lsn=Lsn(3 * SIZE)),
            Lsn(2 * SIZE),
            at(20),
            "it ended at LSN 0/2000000, expected LSN 0/3000000",
        ),
        (
            RecoveryTarget(kind=TargetKind.IMMEDIATE),
            Lsn(SIZE + 80),
            None,
            "it ended at LSN 0/1000050, expected the end of the base backup",
        ),
    ],
)
def test_an_early_or_late_end_is_wrong(
    prepared: PreparedRestore, target: RecoveryTarget, lsn: Lsn, commit_at: datetime | None, words: str
) -> None:
    """Also where the WAL that might explain it cannot be read."""
    with pytest.raises(RestoreError) as caught:
        check(prepared, target, lsn, commit_at)
    assert words in caught.value.message


def test_a_recovery_that_lost_data_is_never_called_good(prepared: PreparedRestore) -> None:
    """It ended where it was planned to, and the server said that it emptied a damaged page."""
    words = 'invalid page in block 3 of relation "base/5/16384"; zeroing out page'
    result = RecoveryResult(RecoveryState.OPEN, END, at(40), 2, None, 3, {}, LOG, 1, warnings=("something else", words))
    with pytest.raises(RestoreError) as caught:
        require_reached(prepared, result)
    assert caught.value.message == f"PostgreSQL lost data while it recovered: {words} (in '/srv/pgdata')"
    page = "page 7 of relation base/16385/16390 is uninitialized"
    with pytest.raises(RestoreError) as missed:
        require_reached(prepared, replace(result, warnings=(), missed=(page,)))
    assert missed.value.message == f"PostgreSQL lost data while it recovered: {page} (in '/srv/pgdata')"
    assert caught.value.hint == (
        f"Do not let anyone use this server before you know what is lost: look into its log '{LOG}', and restore again "
        "from an older base backup, which has the same moments."
    )
