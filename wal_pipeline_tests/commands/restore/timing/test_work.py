"""Tests what a restore has to do, in bytes, and what is learnt from one that was done."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.archive.records import BackupKind
from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.archive.restore_time.forecast import predict_restore
from wal_pipeline.archive.restore_time.measure import MeasuredBy, MeasuredRestore, RestorePhase
from wal_pipeline.commands.restore.perform import RestoreResult
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.commands.restore.timing.work import ReceivedBytes, measured_restore, recovery_seconds, work_of
from wal_pipeline.postgres.replay_progress import RecoveryState
from wal_pipeline.stores.request_meter import RequestMeter
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.manifests import make_local_manifest, make_manifest
from wal_pipeline_tests.support.prepared_restore import SEGMENT_SIZE, planned_to, prepared_restore
from wal_pipeline_tests.support.restore_archive import WatchedStore

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
FILES = {"plan": 0.5, "download": 10.0, "verify": 4.0, "finish": 2.0}
TOLD = {"starting": 0.1, "replaying": 1.0, "consistent": 2.0, "replayed": 7.0, "open": 7.5, "total": 8.0}


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedRestore:
    """A restore of three segments from r2 and b2."""
    return prepared_restore(tmp_path, ("r2", "b2"))


def recovered(state: RecoveryState = RecoveryState.OPEN, seconds: Mapping[str, float] = TOLD) -> RecoveryResult:
    return RecoveryResult(state, Lsn(1), None, 2, None, 3, seconds, Path("/log"), 1)


def measure(
    prepared: PreparedRestore, downloaded: int, recovery: RecoveryResult | None, **came: int
) -> MeasuredRestore:
    result = RestoreResult(Path("/srv/pgdata"), ("a",), 1, downloaded, FILES, ())
    return measured_restore(
        prepared, result, recovery, host="db1", by=MeasuredBy.RESTORE, finished_at=AT, received_bytes=came
    )


def test_the_work_of_a_full_base_backup(prepared: PreparedRestore) -> None:
    """Its stored bytes, its files, and the WAL from its start to the end of the last segment."""
    [manifest], work = prepared.chain, work_of(prepared)
    assert (work.stores, work.verifies, work.combined_bytes) == (("r2", "b2"), True, 0)
    assert (work.fetched_bytes, work.written_bytes) == (manifest.stored_size_bytes, manifest.size_bytes)
    assert work.wal_bytes == 4 * SEGMENT_SIZE - prepared.plan.backup.start_lsn


@pytest.mark.parametrize(
    ("target", "end"),
    [
        (RecoveryTarget(kind=TargetKind.LSN, lsn=Lsn(2 * SEGMENT_SIZE + 512)), 2 * SEGMENT_SIZE + 512),
        (RecoveryTarget(kind=TargetKind.IMMEDIATE), SEGMENT_SIZE + 400),
    ],
)
def test_only_wal_up_to_the_target_is_replayed(prepared: PreparedRestore, target: RecoveryTarget, end: int) -> None:
    """Inside a segment, where the target says where."""
    plan = planned_to(target)
    assert work_of(replace(prepared, plan=plan)).wal_bytes == end - plan.backup.start_lsn


def test_the_work_of_a_chain_that_is_combined(prepared: PreparedRestore) -> None:
    """Everything is opened, and the result is as large as the full one."""
    full = make_manifest()
    last = make_manifest(kind=BackupKind.INCREMENTAL, chain=(full.backup_id,), tars=full.tars[:1])
    work = work_of(replace(prepared, chain=(full, last)))
    assert (work.written_bytes, work.combined_bytes) == (full.size_bytes, full.size_bytes + last.size_bytes)


def test_the_work_of_one_that_names_its_volumes(prepared: PreparedRestore) -> None:
    """Nothing is combined, whatever it refers to."""
    work = work_of(replace(prepared, chain=(make_local_manifest(), make_local_manifest(referred=1))))
    assert (work.written_bytes, work.combined_bytes) == (5000, 0)


def test_a_restore_teaches_all_its_phases(prepared: PreparedRestore) -> None:
    """Also the parts of its recovery: what has to do with the amount of WAL, and what has not."""
    found = measure(prepared, prepared.download_bytes, recovered())
    assert {phase.value: seconds for phase, seconds in found.seconds.items()} == {
        "plan": 0.0, "download": 10.0, "verify": 4.0, "finish": 2.0, "start": 1.5, "replay": 6.0, "open": 0.5,
    }  # fmt: skip
    assert (found.host, found.by, found.finished_at, found.predicted_seconds) == ("db1", MeasuredBy.RESTORE, AT, None)


def test_a_restore_that_was_not_started_teaches_its_files(prepared: PreparedRestore) -> None:
    """Whoever starts it later is not watched."""
    found = measure(prepared, prepared.download_bytes, None)
    assert [phase.value for phase in found.seconds] == ["plan", "download", "verify", "finish"]


def test_a_restore_that_found_its_files_there_teaches_no_rate(prepared: PreparedRestore) -> None:
    """It downloaded a tenth, in a tenth of the time or in all of it."""
    found = measure(prepared, prepared.download_bytes // 10, recovered())
    assert [phase.value for phase in found.seconds] == ["plan", "start", "replay", "open"]


def test_a_recovery_that_pauses_has_no_opening(prepared: PreparedRestore) -> None:
    """It has replayed when it pauses."""
    seconds = {"replaying": 1.0, "consistent": 2.0, "paused": 7.0, "total": 7.0}
    assert recovery_seconds(recovered(RecoveryState.PAUSED, seconds)) == {
        RestorePhase.START: 1.0,
        RestorePhase.REPLAY: 6.0,
    }


def test_a_server_that_did_not_tell_teaches_nothing() -> None:
    """When it began to replay is not known."""
    assert recovery_seconds(recovered(seconds={"open": 3.0, "total": 3.0})) == {}


def test_the_stores_that_gave_the_bytes_are_named(prepared: PreparedRestore) -> None:
    """Not all that could have."""
    assert measure(prepared, 99, None, r2=99, b2=0).work.stores == ("r2",)
    assert measure(prepared, 99, None).work.stores == ("r2", "b2")


def test_it_is_compared_with_what_was_predicted_for_what_was_done(prepared: PreparedRestore) -> None:
    """A restore that was not started is compared with the prediction for its files alone."""
    before = measure(prepared, prepared.download_bytes, recovered())
    again = replace(prepared, forecast=predict_restore(work_of(prepared), [before], "db1"))
    assert measure(again, prepared.download_bytes, recovered()).predicted_seconds == pytest.approx(24.0)
    assert measure(again, prepared.download_bytes, None).predicted_seconds == pytest.approx(16.0)
    unknown = replace(prepared, forecast=predict_restore(work_of(prepared), [], "db1"))
    assert measure(unknown, prepared.download_bytes, recovered()).predicted_seconds is None


def test_bytes_are_counted_from_its_making_on(tmp_path: Path) -> None:
    """A store that counts none is left out."""
    counting, silent = WatchedStore("r2", tmp_path / "r2"), WatchedStore("b2", tmp_path / "b2")
    counting.meter = RequestMeter()  # type: ignore[attr-defined]
    counting.meter.add_bytes(received=5)  # type: ignore[attr-defined]
    received = ReceivedBytes([counting, silent])
    counting.meter.add_bytes(received=7)  # type: ignore[attr-defined]
    assert received.by_store == {"r2": 7}
