"""Launches archiving runs in a warm worker, a process that has already loaded all that a run needs."""

import logging
from collections.abc import Mapping
from typing import Any, Final, Self

import dagster as dg
from celery.exceptions import CeleryError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._serdes import ConfigurableClassData
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG, DAGSTER_CELERY_TASK_ID_TAG
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from wal_pipeline.orchestration.keys import ARCHIVE_JOB, CLUSTER_TAG, warm_queue

_PING_SECONDS: Final = 1.0
# A slow or missing Redis must not delay the daemon: after these seconds the run starts without a worker.
_LAUNCHER: Final = {
    "broker_connection_timeout": 2,
    "broker_transport_options": {
        "socket_connect_timeout": 2,
        "socket_timeout": 5,
        "max_retries": 1,
        "interval_start": 0,
        "connect_retries_timeout": 4,
    },
    "result_backend_transport_options": {"retry_policy": {"max_retries": 1}},
    "redis_socket_connect_timeout": 2,
    "redis_socket_timeout": 5,
    "task_publish_retry": False,
}
_UNREACHABLE: Final = (KombuError, CeleryError, RedisError, OSError)
_log = logging.getLogger(__name__)


def queue_of(run: dg.DagsterRun) -> str | None:
    """Return the queue of an archiving run's cluster; None for any other run."""
    cluster = run.tags.get(CLUSTER_TAG)
    return warm_queue(cluster) if run.job_name == ARCHIVE_JOB and cluster is not None else None


class WarmRunLauncher(CeleryRunLauncher):
    """Hands archiving runs to the warm worker of their cluster; starts all others as Dagster's default launcher does.

    Warm workers make archiving quicker, and archiving works without them. Where Redis is gone or no worker answers,
    the code server starts the run, as if this launcher were not there.
    """

    def __init__(self, redis_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        """``redis_url``: the server that passes the runs' ids on, such as ``redis://:password@127.0.0.1:6379/0``."""
        super().__init__(
            default_queue="archive", broker=redis_url, backend=redis_url, config_source=_LAUNCHER, inst_data=inst_data
        )
        self.redis_url = redis_url
        self._cold = DefaultRunLauncher()

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the fields below ``config`` in dagster.yaml."""
        return {"redis_url": dg.Field(dg.StringSource, description="The URL of the Redis server.")}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make the launcher that dagster.yaml describes."""
        return cls(redis_url=config_value["redis_url"], inst_data=inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Pass the instance to both launchers."""
        super().register_instance(instance)
        self._cold.register_instance(instance)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand the run to its worker, or start it without one. Raises: what the default launcher raises."""
        queue = queue_of(context.dagster_run)
        if queue is None or not self._hand_over(context, queue):
            self._cold.launch_run(context)

    def _hand_over(self, context: LaunchRunContext, queue: str) -> bool:
        """Hand the run to its worker. Return whether the worker has it now."""
        try:
            if self._worker_answers(queue):
                self._queue(context, queue)
                return True
            reason = f"No warm worker of queue '{queue}' answers."
        except _UNREACHABLE as error:
            reason = f"Redis cannot be reached ({type(error).__name__})."  # the error's own text may hold the URL
        _log.warning("%s The run starts without a warm worker.", reason)
        self._instance.report_engine_event(
            f"{reason} The run starts without a warm worker.", context.dagster_run, cls=type(self)
        )
        return False

    def _queue(self, context: LaunchRunContext, queue: str) -> None:
        """Hand the run over with the tag by which Celery finds its queue. It is not kept: the UI would show it."""
        run = context.dagster_run
        tags = {**run.tags, DAGSTER_CELERY_QUEUE_TAG: queue}
        super().launch_run(context._replace(dagster_run=run.with_tags(tags)))

    def _worker_answers(self, queue: str) -> bool:
        """Ask before the run is queued: a queued run that no worker takes would keep all others waiting."""
        return bool(
            self.celery.control.broadcast(
                "ping", reply=True, timeout=_PING_SECONDS, limit=1, pattern=f"{queue}@*", matcher="glob"
            )
        )

    def terminate(self, run_id: str) -> bool:
        """Ask the run to end, as 'Terminate' in the UI does."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            return bool(self._cold.terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        # Celery's own SIGTERM would end the process before it tells Dagster.
        self.celery.control.revoke(task_id, terminate=True, signal="SIGINT")
        return True

    @property
    def supports_resume_run(self) -> bool:
        """False: the next archiving run does what this one left undone."""
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Report a worker that died during the run. A task unknown to Redis proves nothing; the spool's lock does."""
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            has_failed = self.celery.AsyncResult(task_id).state == "FAILURE"
        except _UNREACHABLE:
            has_failed = False
        if has_failed:
            return CheckRunHealthResult(WorkerStatus.FAILED, "The worker's process ended during the run.")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:  # noqa: ARG002
        """Name the run's task in Celery."""
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        return None if task_id is None else f"Celery task: {task_id}"
