"""Defines the sensor that starts an archiving run when files wait in the spool."""

import time

import dagster as dg

from wal_pipeline.commands.archive_push.pending import PendingWork, pending_work
from wal_pipeline.orchestration.keys import ARCHIVE_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.in_flight import run_in_flight
from wal_pipeline.orchestration.sensors.lost_run import LostRunWatch, may_be_lost
from wal_pipeline.wiring.pipeline import Pipeline

_LOOK_SECONDS = 0.1
_LOOK_AT_RUNS_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 5.0


def build_spool_sensor(keys: Keys, job: dg.JobDefinition, *, interval_seconds: int) -> dg.SensorDefinition:
    """Return the sensor of one cluster's spool."""

    @dg.sensor(
        name="spool_sensor",
        job=job,
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Waits for files in the spool and starts an archiving run at once, but never a second one beside "
        "one in flight. A store that fails is tried again after a wait of up to five minutes; the others continue.",
    )
    def spool_sensor(
        context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        pipeline = wal_pipeline.open()
        deadline = time.monotonic() + pipeline.settings.sensor_wait_seconds
        watch = LostRunWatch.from_cursor(context.cursor, pipeline.settings.lost_run_seconds)
        run_id = _wait_for_run(context.instance, keys, pipeline, watch, deadline)
        context.update_cursor(watch.cursor)
        if run_id is not None:
            return dg.SkipReason(f"run {run_id} is archiving; {_look(pipeline).describe()}")
        work = _wait_for_work(pipeline, deadline)
        if not work.is_due:
            return dg.SkipReason(work.describe())
        if not _wait_for_lock(pipeline, deadline):
            return dg.SkipReason(f"another process archives from the spool; {work.describe()}")
        context.log.info(work.describe())
        return dg.RunRequest(tags={"wal_pipeline/spool_files": str(work.files)})

    return spool_sensor


def _wait_for_run(
    instance: dg.DagsterInstance, keys: Keys, pipeline: Pipeline, watch: LostRunWatch, deadline: float
) -> str | None:
    """Wait until no archiving run of this cluster is in flight; return the id of one that remains in the end."""
    while True:
        run = run_in_flight(instance, ARCHIVE_JOB, keys.tags)
        if run is None:
            return None
        if watch.is_lost(run, pipeline.spool.busy, time.time()) and _is_still_started(instance, run):
            instance.report_run_failed(
                run,
                f"The run's process is gone: for {watch.limit_seconds:g} s it held no lock on the spool. "
                "The next run does what it did not finish.",
            )
            continue
        if time.monotonic() >= deadline:
            return run.run_id
        time.sleep(_LOOK_AT_RUNS_SECONDS)


def _is_still_started(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Look once more, because a run releases the lock a moment before Dagster records its end."""
    time.sleep(_LOOK_AT_RUNS_SECONDS)
    found = instance.get_run_by_id(run.run_id)
    return found is not None and may_be_lost(found)


def _wait_for_lock(pipeline: Pipeline, deadline: float) -> bool:
    """Wait while 'wal-pipeline archive' or another process holds the lock; False where it still does at the end."""
    while pipeline.spool.busy():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_AT_RUNS_SECONDS)
    return True


def _wait_for_work(pipeline: Pipeline, deadline: float) -> PendingWork:
    """Wait until a run has work, and return that work. A change of the folder is seen at once."""
    work, changed_ns = _look(pipeline), pipeline.spool.changed_ns()
    looked = time.monotonic()
    while not work.is_due and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        now_changed = pipeline.spool.changed_ns()
        if now_changed != changed_ns or work.growing or time.monotonic() - looked > _LOOK_AGAIN_SECONDS:
            work, changed_ns, looked = _look(pipeline), now_changed, time.monotonic()
    return work


def _look(pipeline: Pipeline) -> PendingWork:
    return pending_work(pipeline.spool, pipeline.catalog, pipeline.settings.stores, pipeline.clock())
