"""Defines clones as a job: ``wal-pipeline clone``, on the host where the code location runs."""

import dagster as dg

from wal_pipeline.orchestration.jobs.clone.config import CloneConfig
from wal_pipeline.orchestration.keys import CLONE_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors


def build_clone_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that makes, moves, ends and lists clones."""

    @dg.op(description="Make a running copy of the cluster as of a moment, move or end one, or list them.")
    @with_plain_errors
    def clone(context: dg.OpExecutionContext, config: CloneConfig, wal_pipeline: WalPipelineResource) -> None:
        from wal_pipeline.orchestration.jobs.clone.run import run_clone

        run_clone(context, config, wal_pipeline, keys)

    @dg.job(
        name=CLONE_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Make a running copy of the cluster as of a moment, beside the original, for a while; or move, stop, list. "
            "It outlives the run, and is ended and removed when its time is over; where the code location's container "
            "or unit is stopped before, it ends with that, and the health sensor removes its folder. The result is the "
            "asset clones."
        ),
    )
    def clone_cluster() -> None:
        clone()

    return clone_cluster
