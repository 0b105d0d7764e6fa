"""Dagster's run launcher for warm workers: an archiving run goes to a process that has loaded everything already."""

import logging
from collections.abc import Mapping
from typing import Any, Final, Self

import dagster as dg
from celery.exceptions import CeleryError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._serdes import ConfigurableClassData
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from wal_pipeline.orchestration.keys import QUEUE_TAG

_PING_SECONDS: Final = 1.0
# Redis that is slow or gone must not hold up the daemon: the run then starts without a worker.
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


class WarmRunLauncher(CeleryRunLauncher):
    """Hands runs with a queue to the warm worker of that queue; starts all others as Dagster's default launcher does.

    Warm workers make archiving quicker and are never needed for it: where Redis is gone or no worker answers, the
    run is started by the code server as if this launcher were not there.
    """

    def __init__(self, redis_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        """``redis_url``: where the runs' ids are handed over, ``redis://:password@127.0.0.1:6379/0`` say."""
        super().__init__(
            default_queue="archive", broker=redis_url, backend=redis_url, config_source=_LAUNCHER, inst_data=inst_data
        )
        self.redis_url = redis_url
        self._cold = DefaultRunLauncher()

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """What stands below ``config`` in dagster.yaml."""
        return {"redis_url": dg.Field(dg.StringSource, description="The URL of the Redis server.")}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make the launcher that dagster.yaml describes."""
        return cls(redis_url=config_value["redis_url"], inst_data=inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Let both ways of starting a run know the instance."""
        super().register_instance(instance)
        self._cold.register_instance(instance)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand the run to its worker, or start it without one. Raises: what the default launcher raises."""
        queue = context.dagster_run.tags.get(QUEUE_TAG)
        if queue is None or not self._hand_over(context, queue):
            self._cold.launch_run(context)

    def _hand_over(self, context: LaunchRunContext, queue: str) -> bool:
        """Return whether a worker has the run now."""
        try:
            if self._worker_answers(queue):
                super().launch_run(context)
                return True
            reason = f"No warm worker of queue '{queue}' answers."
        except _UNREACHABLE as error:
            reason = f"Redis cannot be reached ({type(error).__name__})."  # its text may hold the URL
        _log.warning("%s The run starts without a warm worker.", reason)
        self._instance.report_engine_event(
            f"{reason} The run starts without a warm worker.", context.dagster_run, cls=type(self)
        )
        return False

    def _worker_answers(self, queue: str) -> bool:
        """Ask before a run is queued: one that nobody takes would keep all others waiting."""
        return bool(
            self.celery.control.broadcast(
                "ping", reply=True, timeout=_PING_SECONDS, limit=1, pattern=f"{queue}@*", matcher="glob"
            )
        )

    def terminate(self, run_id: str) -> bool:
        """Ask the run to end, as a click on 'Terminate' does."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            return bool(self._cold.terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        # Not Celery's own SIGTERM, which would end the process with no word to Dagster.
        self.celery.control.revoke(task_id, terminate=True, signal="SIGINT")
        return True

    @property
    def supports_resume_run(self) -> bool:
        """No: the next run does what one leaves."""
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Tell of a worker that died in the run. What Redis does not know is no sign of that: the spool's lock is."""
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            has_failed = self.celery.AsyncResult(task_id).state == "FAILURE"
        except _UNREACHABLE:
            has_failed = False
        if has_failed:
            return CheckRunHealthResult(WorkerStatus.FAILED, "The worker's process ended in the middle of the run.")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:  # noqa: ARG002
        """Say which task of Celery a run is."""
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        return None if task_id is None else f"Celery task: {task_id}"
