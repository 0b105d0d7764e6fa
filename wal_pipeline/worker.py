"""Runs a warm worker, which takes the archiving runs of one cluster: ``python -m wal_pipeline.worker``.

The settings and DAGSTER_HOME are those of the code location. Changed settings or code take effect after a restart.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import dagster as dg
from celery.signals import task_postrun, worker_process_init, worker_shutting_down
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import unpack_value
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task
from kombu.entity import Queue

from wal_pipeline.errors import SettingsError, WalPipelineError
from wal_pipeline.orchestration.keys import warm_queue
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.warm_launcher import WarmRunLauncher
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.pipeline import open_pipeline

_MAX_MEMORY_KIB: Final = 2 * 2**20  # a process that uses more after a run is replaced
_WARM_UP_SECONDS: Final = 120  # Celery's own 4 s are too short for a loaded machine
_log = logging.getLogger(__name__)
_waiting = ExitStack()


def build_worker(redis_url: str, queue: str) -> Any:
    """Return the Celery app of a worker that takes runs from one queue."""
    app = make_app(  # type: ignore[no-untyped-call]
        {
            "broker": redis_url,
            "backend": redis_url,
            "config_source": {
                "broker_connection_retry_on_startup": True,
                "worker_prefetch_multiplier": 1,
                "worker_max_memory_per_child": _MAX_MEMORY_KIB,
                "worker_proc_alive_timeout": _WARM_UP_SECONDS,
                "worker_redirect_stdouts": False,
                "worker_send_task_events": False,
                "accept_content": ["json"],
            },
        }
    )
    app.conf.task_queues = [Queue(queue, routing_key=f"{queue}.#")]  # type: ignore[no-untyped-call]
    create_execute_job_task(app)
    return app


def warm_up(**_signal: object) -> None:
    """Load all that a run needs, in the process that will run it: connections do not survive a fork."""
    from wal_pipeline.definitions import defs  # noqa: PLC0415

    defs().get_repository_def().get_all_jobs()
    pipeline = WalPipelineResource().open()
    try:
        _ = pipeline.stores, pipeline.catalog
    except WalPipelineError as error:
        _log.warning("the first run must open its stores or its catalog by itself: %s", error.message)
    else:
        _log.info("all that a run of cluster '%s' needs is loaded", pipeline.settings.cluster)


def leave_if_not_clean(retval: object = None, args: Sequence[Any] = (), kwargs: Any = None, **_signal: object) -> None:
    """End this process after a run that did not succeed, so that nothing of it, such as a lock, outlives the run.

    Celery starts a new process. A run that was canceled in the middle can leave generators and threads.
    """
    packed = next(iter([*args, *(kwargs or {}).values()]))
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(unpack_value(packed, as_type=ExecuteRunArgs).run_id)
    if retval != 0 or run is None or run.status is not dg.DagsterRunStatus.SUCCESS:
        logging.shutdown()
        os._exit(1)


def end_run_that_waits(**_signal: object) -> None:
    """Ask a run that only waits for files to end: this worker was told to stop, and waits for the run at work.

    The mark on the spool lasts as long as this process.
    """
    try:
        _waiting.enter_context(open_pipeline().spool.wanted())
    except WalPipelineError as error:
        _log.warning("a run that waits for files is not told to end: %s", error.message)


def find_redis() -> str:
    """Return the Redis URL of the instance's run launcher. Raises: SettingsError where it has another launcher."""
    with dg.DagsterInstance.get() as instance:
        launcher = instance.run_launcher
        if isinstance(launcher, WarmRunLauncher):
            return launcher.redis_url
        raise SettingsError(
            f"the run launcher of '{instance.root_directory}' is '{type(launcher).__name__}', expected "
            "'WarmRunLauncher'",
            hint="Use deploy/dagster-workers.yaml as dagster.yaml.",
        )


def main() -> None:
    """Take runs until SIGTERM, and then finish the current one."""
    try:
        redis_url, queue = find_redis(), warm_queue(load_settings().cluster)
    except WalPipelineError as error:
        sys.exit(f"ERROR: {error}")
    worker_process_init.connect(warm_up)
    worker_shutting_down.connect(end_run_that_waits)
    task_postrun.connect(leave_if_not_clean)
    options = ["--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle", "--loglevel=INFO"]
    build_worker(redis_url, queue).worker_main(["worker", f"--hostname={queue}@%h", *options])


if __name__ == "__main__":
    main()
