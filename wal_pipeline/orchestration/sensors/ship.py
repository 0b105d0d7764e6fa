"""Defines the sensor that keeps a shipping run at work."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

import dagster as dg

from wal_pipeline.commands.pause import Pause, current_pause
from wal_pipeline.errors import CatalogError
from wal_pipeline.orchestration.jobs.ship import handover_seconds
from wal_pipeline.orchestration.keys import SHIP_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.in_flight import runs_in_flight
from wal_pipeline.orchestration.sensors.lost_run import LostRunWatch, is_still_started, process_lives
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.shipper_lock import ShipLock

SHIP_SENSOR: Final = "ship_sensor"
_TICK_SHARE: Final = 2  # a run lasts for hours, and the next one is started before its end
_SHORT_SECONDS: Final = 60.0
_FIRST_WAIT_SECONDS: Final = 5.0
_MOST_LOOKED_AT: Final = 10
_LATE_SECONDS: Final = 300.0


def build_ship_sensor(keys: Keys, job: dg.JobDefinition, *, interval_seconds: int) -> dg.SensorDefinition:
    """Return the sensor of one cluster's shipping."""

    @dg.sensor(
        name=SHIP_SENSOR,
        job=job,
        minimum_interval_seconds=_TICK_SHARE * interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags=keys.tags,
        description=keys.described(
            "Keeps one run at work that ships the open segment: starts it where none is in flight and no other "
            "process ships, and the next one a minute before its time is over. Waits longer after each run that "
            "ended at once. Starts none while archiving is paused."
        ),
    )
    def ship_sensor(
        context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        from wal_pipeline.wiring.ship import ship_lock

        pipeline = wal_pipeline.open()
        paused = _pause(context, pipeline)
        if paused is not None:
            return dg.SkipReason(f"nothing is shipped: {paused.describe()}")
        lock = ship_lock(pipeline)
        watch = LostRunWatch.from_cursor(context.cursor, pipeline.settings.lost_run_seconds)
        run = _run_at_work(context.instance, keys, pipeline, watch, lock)
        context.update_cursor(watch.cursor)
        now = time.time()
        if run is not None:
            if not _is_about_to_end(context.instance, run, pipeline, now):
                return dg.SkipReason(f"run {run.run_id} is shipping")
            return dg.RunRequest()
        if lock.is_held():
            return dg.SkipReason("another process ships the open segment: 'wal-pipeline ship' holds its lock")
        wait = wait_seconds(_last_runs(context.instance, keys), pipeline.settings.max_backoff_seconds, now)
        if wait > 0:
            return dg.SkipReason(f"the last run ended at once: the next one starts in {wait:.0f} s")
        return dg.RunRequest()

    return ship_sensor


def _pause(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> Pause | None:
    """Return the pause that holds now. A catalog that does not answer stops nothing: the stores are the truth."""
    try:
        return current_pause(pipeline.catalog, pipeline.clock())
    except CatalogError as error:
        context.log.warning(f"whether archiving is paused is not known: {error.message}")
        return None


def _run_at_work(
    instance: dg.DagsterInstance, keys: Keys, pipeline: Pipeline, watch: LostRunWatch, lock: "ShipLock"
) -> dg.DagsterRun | None:
    """Return the newest run in flight whose process is not lost. Runs whose process is lost are marked as failed."""
    runs = runs_in_flight(instance, SHIP_JOB, keys.tags)
    for older in runs[1:]:  # it handed over, and should have ended
        if _is_late(instance, older, pipeline, time.time()) and not process_lives(older):
            instance.report_run_failed(older, "The run's process is gone. Another run ships.")
    if not runs:
        return None
    newest = runs[0]
    if watch.is_lost(newest, lock.is_held, time.time()) and is_still_started(instance, newest):
        text = f"The run's process is gone: for {watch.limit_seconds:g} s it held no lock. The next run goes on."
        instance.report_run_failed(newest, text)
        return None
    return newest


def _is_about_to_end(instance: dg.DagsterInstance, run: dg.DagsterRun, pipeline: Pipeline, now: float) -> bool:
    """Whether the next run must be started, so that it is ready when this one ends."""
    started_at, most = _started_at(instance, run), pipeline.settings.max_run_age_seconds
    return started_at is not None and now - started_at >= most - handover_seconds(most)


def _is_late(instance: dg.DagsterInstance, run: dg.DagsterRun, pipeline: Pipeline, now: float) -> bool:
    started_at = _started_at(instance, run)
    return started_at is not None and now - started_at >= pipeline.settings.max_run_age_seconds + _LATE_SECONDS


def _started_at(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float | None:
    record = instance.get_run_record_by_id(run.run_id)
    return None if record is None else record.start_time


class EndedRun(Protocol):
    """The times of a run, in seconds since 1970; None where it has not started, or not ended."""

    @property
    def start_time(self) -> float | None:
        """When it started."""

    @property
    def end_time(self) -> float | None:
        """When it ended."""


def _last_runs(instance: dg.DagsterInstance, keys: Keys) -> Sequence[dg.RunRecord]:
    return instance.get_run_records(dg.RunsFilter(job_name=SHIP_JOB, tags=keys.tags), limit=_MOST_LOOKED_AT)


def wait_seconds(records: "Sequence[EndedRun]", most: float, now: float) -> float:
    """Return how long the next run must wait: after each run that ended at once twice as long. ``now`` is since 1970.

    ``records`` are the last runs, the newest first.
    """
    short = 0
    for record in records:
        if record.end_time is None or record.end_time - (record.start_time or record.end_time) >= _SHORT_SECONDS:
            break
        short += 1
    if not short or records[0].end_time is None:
        return 0.0
    wait = min(most, _FIRST_WAIT_SECONDS * 2**short)
    passed = now - records[0].end_time
    return wait - passed if passed >= 0 else 0.0
