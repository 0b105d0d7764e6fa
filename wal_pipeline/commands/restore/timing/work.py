"""Says what a prepared restore has to do, in bytes, and how long each part of it took."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from wal_pipeline.archive.recovery.restore_plan import RestorePlan
from wal_pipeline.archive.recovery.target import TargetKind
from wal_pipeline.archive.restore_time.measure import MeasuredBy, MeasuredRestore, RestorePhase, RestoreWork
from wal_pipeline.commands.restore.chosen.databases import needed_of
from wal_pipeline.commands.restore.perform import RestoreResult
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.commands.restore_times import measured_stores
from wal_pipeline.postgres.replay_progress import REPLAYED, RecoveryState
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.request_meter import RequestMeter
from wal_pipeline.wal.names import require_file_name

_OF_FILES: Final = (RestorePhase.DOWNLOAD, RestorePhase.COMBINE, RestorePhase.VERIFY, RestorePhase.FINISH)
_MOSTLY: Final = 0.9  # of the planned bytes: a restore that found most of its files there says nothing of a whole one


def work_of(prepared: PreparedRestore) -> RestoreWork:
    """Return what a restore has to do until its server is open."""
    needed = needed_of(prepared.chosen, prepared.chain)
    is_combined = len(needed) > 1 and prepared.chain[-1].is_combined
    sizes = [one.size_bytes for one in needed]
    return RestoreWork(
        stores=tuple(store.name for store in prepared.stores if store.name in prepared.plan.chain[-1].stores),
        fetched_bytes=prepared.download_bytes,
        written_bytes=max(sizes) if is_combined else sizes[-1],
        wal_bytes=wal_bytes(prepared.plan),
        combined_bytes=sum(sizes) if is_combined else 0,
        verifies=prepared.request.verify,
    )


def wal_bytes(plan: RestorePlan) -> int:
    """Return the bytes of WAL from the base backup's start to the target, or to the end of its segment."""
    if not plan.wal:
        return 0
    size = plan.backup.wal_segment_size
    end = require_file_name(plan.wal[-1].name).end_lsn(size) if plan.tail is None else plan.tail.end_lsn
    lsn = plan.backup.stop_lsn if plan.target.kind is TargetKind.IMMEDIATE else plan.target.lsn
    return max(0, (end if lsn is None else min(end, lsn)) - plan.backup.start_lsn)


class ReceivedBytes:
    """Counts the bytes that stores give from now on, where they count them."""

    def __init__(self, stores: Sequence[Store]) -> None:
        found = {store.name: getattr(store, "meter", None) for store in stores}
        self._meters = {name: meter for name, meter in found.items() if isinstance(meter, RequestMeter)}
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        return {name: meter.totals().received_bytes for name, meter in self._meters.items()}

    @property
    def by_store(self) -> dict[str, int]:
        """The bytes that came since, by store."""
        return {name: count - self._before[name] for name, count in self._now().items()}


def measured_restore(
    prepared: PreparedRestore,
    result: RestoreResult,
    recovery: RecoveryResult | None,
    *,
    host: str,
    by: MeasuredBy,
    finished_at: datetime,
    received_bytes: Mapping[str, int] | None = None,
) -> MeasuredRestore:
    """Return how long a restore took, without the phases that say nothing of another one."""
    planned = work_of(prepared)
    stores = measured_stores(planned.stores, dict(received_bytes or {}))
    seconds = {RestorePhase.PLAN: prepared.plan_seconds}
    if result.downloaded_bytes >= _MOSTLY * planned.fetched_bytes:
        seconds |= {phase: result.seconds[phase.value] for phase in _OF_FILES if phase.value in result.seconds}
    if recovery is not None:
        seconds |= recovery_seconds(recovery)
    work = replace(planned, stores=stores, fetched_bytes=result.downloaded_bytes)
    predicted = None if prepared.forecast is None else prepared.forecast.of(seconds)
    return MeasuredRestore(host, by, finished_at, work, seconds, predicted)


def recovery_seconds(recovery: RecoveryResult) -> dict[RestorePhase, float]:
    """Return the seconds of a recovery by phase; none where its server did not tell when it began to replay."""
    told, total = recovery.seconds, recovery.seconds["total"]
    begun, ended = told.get(RecoveryState.REPLAYING.value), told.get(recovery.state.value)
    if begun is None or ended is None:
        return {}
    replayed = told.get(REPLAYED, ended)
    found = {RestorePhase.START: begun + max(0.0, total - ended), RestorePhase.REPLAY: max(0.0, replayed - begun)}
    return found | ({RestorePhase.OPEN: max(0.0, ended - replayed)} if recovery.state is RecoveryState.OPEN else {})
