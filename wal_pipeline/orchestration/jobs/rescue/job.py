"""Defines the rescue as a job: ``wal-pipeline rescue``, on the host where the code location runs."""

import dagster as dg

from wal_pipeline.orchestration.jobs.rescue.config import RescueConfig
from wal_pipeline.orchestration.keys import RESCUE_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors


def build_rescue_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that brings single tables back."""

    @dg.op(description="Recover the cluster in a scratch folder, take the tables out of it, and remove it.")
    @with_plain_errors
    def rescue(context: dg.OpExecutionContext, config: RescueConfig, wal_pipeline: WalPipelineResource) -> None:
        from wal_pipeline.orchestration.jobs.rescue.run import run_rescue

        run_rescue(context, config, wal_pipeline, keys)

    @dg.job(
        name=RESCUE_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Bring tables back as they were just before an accident, beside the living ones or into a dump. The "
            "cluster stays up, and no living table is written over. The result is the asset rescued_tables."
        ),
    )
    def rescue_tables() -> None:
        rescue()

    return rescue_tables
