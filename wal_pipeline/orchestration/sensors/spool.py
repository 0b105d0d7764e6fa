"""Defines the sensor that starts an archiving run when files wait in the spool."""

import time
from collections.abc import Callable

import dagster as dg

from wal_pipeline.commands.archive_push.pending import PendingWork, pending_work
from wal_pipeline.orchestration.keys import ARCHIVE_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.in_flight import run_in_flight
from wal_pipeline.orchestration.sensors.lost_run import LostRunWatch, is_still_started
from wal_pipeline.orchestration.sensors.waiting import SPOOL_SENSOR, count_threads
from wal_pipeline.wiring.pipeline import Pipeline

_LOOK_SECONDS = 0.1
_LOOK_AT_RUNS_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 5.0
_LOOK_AGAIN_SHARE = 2  # look again only after twice as long as the last look took
_TICK_SECONDS = 50.0  # Dagster gives up a tick after 60 s


def build_spool_sensor(keys: Keys, job: dg.JobDefinition, *, interval_seconds: int) -> dg.SensorDefinition:
    """Return the sensor of one cluster's spool."""

    @dg.sensor(
        name=SPOOL_SENSOR,
        job=job,
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags=keys.tags,
        description=keys.described(
            "Waits for files in the spool and starts an archiving run at once, but never a second one beside one "
            "in flight. A store that fails is tried again after a wait of up to five minutes; the others "
            "continue."
        ),
    )
    def spool_sensor(
        context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        pipeline = wal_pipeline.open()
        looks = Looks(lambda: _look(pipeline), time.monotonic() + _TICK_SECONDS)
        threads = count_threads(context.instance, time.time())
        deadline = time.monotonic() + (pipeline.settings.sensor_wait_seconds if threads.suffice else 0.0)
        notes = [] if threads.suffice else [threads.describe()]
        watch = LostRunWatch.from_cursor(context.cursor, pipeline.settings.lost_run_seconds)
        run_id = _wait_for_run(context.instance, keys, pipeline, watch, deadline)
        context.update_cursor(watch.cursor)
        if run_id is not None:
            return dg.SkipReason("; ".join([f"run {run_id} is archiving", *looks.described(), *notes]))
        work = _wait_for_work(pipeline, looks, deadline)
        if work is None:
            return dg.SkipReason("there was no time to look at the spool; the next tick does")
        if not work.is_due:
            return dg.SkipReason("; ".join([work.describe(), *notes]))
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
        if watch.is_lost(run, pipeline.spool.busy, time.time()) and is_still_started(instance, run):
            instance.report_run_failed(
                run,
                f"The run's process is gone: for {watch.limit_seconds:g} s it held no lock on the spool. "
                "The next run does what it did not finish.",
            )
            continue
        if time.monotonic() >= deadline:
            return run.run_id
        time.sleep(_LOOK_AT_RUNS_SECONDS)


def _wait_for_lock(pipeline: Pipeline, deadline: float) -> bool:
    """Wait while 'wal-pipeline archive' or another process holds the lock; False where it still does at the end."""
    while pipeline.spool.busy():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_AT_RUNS_SECONDS)
    return True


class Looks:
    """The looks at the spool of one tick. None begins that would end after the tick's time, by how long the last took.

    A spool of 200,000 files takes some seconds to list.
    """

    def __init__(
        self, look: Callable[[], PendingWork], ends_at: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """``ends_at`` is a time of ``monotonic``."""
        self._look = look
        self._ends_at = ends_at
        self._monotonic = monotonic
        self._took_seconds = 0.0
        self._looked_at = float("-inf")

    def look(self) -> PendingWork | None:
        """Look; None where there is no time for it."""
        begun = self._monotonic()
        if begun + self._took_seconds >= self._ends_at:
            return None
        work = self._look()
        self._looked_at = self._monotonic()
        self._took_seconds = self._looked_at - begun
        return work

    def described(self) -> list[str]:
        """Look, and describe what waits, as a part of a tick's text; nothing where there is no time for it."""
        work = self.look()
        return [] if work is None else [work.describe()]

    def may_look_again(self) -> bool:
        """Whether a look, which lists the whole spool, is worth its time now."""
        return self._monotonic() - self._looked_at >= _LOOK_AGAIN_SHARE * self._took_seconds

    def is_old(self) -> bool:
        """Whether the last look was so long ago that something may have changed which shows in no folder."""
        return self._monotonic() - self._looked_at > max(_LOOK_AGAIN_SECONDS, _LOOK_AGAIN_SHARE * self._took_seconds)


def _wait_for_work(pipeline: Pipeline, looks: Looks, deadline: float) -> PendingWork | None:
    """Wait until a run has work, and return that work. A change of the folder is seen at once."""
    work, changed_ns = looks.look(), pipeline.spool.changed_ns()
    while work is not None and not work.is_due and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        now_changed = pipeline.spool.changed_ns()
        has_changed = (now_changed != changed_ns or work.growing) and looks.may_look_again()
        if has_changed or looks.is_old():
            seen = looks.look()
            if seen is None:
                return work
            work, changed_ns = seen, now_changed
    return work


def _look(pipeline: Pipeline) -> PendingWork:
    return pending_work(pipeline.spool, pipeline.catalog, pipeline.settings.stores, pipeline.clock())
