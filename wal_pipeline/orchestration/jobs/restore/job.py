"""Defines the restore as a job: ``wal-pipeline restore``, on the host where the code location runs."""

import dagster as dg

from wal_pipeline.orchestration.jobs.restore.config import RestoreConfig
from wal_pipeline.orchestration.keys import RESTORE_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors


def build_restore_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that plans a restore, and does it where it is told to."""

    @dg.op(description="Plan a restore from the stores alone, and, unless plan_only is set, do it.")
    @with_plain_errors
    def restore(context: dg.OpExecutionContext, config: RestoreConfig, wal_pipeline: WalPipelineResource) -> None:
        from wal_pipeline.orchestration.jobs.restore.run import run_restore

        run_restore(context, config, wal_pipeline)

    @dg.job(
        name=RESTORE_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described("Bring the cluster back to a chosen moment, from the stores alone."),
    )
    def restore_cluster() -> None:
        restore()

    return restore_cluster
