"""Defines the search as a job: ``wal-pipeline find``, on the host where the code location runs."""

import dagster as dg

from wal_pipeline.orchestration.jobs.find.config import FindConfig
from wal_pipeline.orchestration.keys import FIND_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors


def build_find_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that finds what transactions did."""

    @dg.op(description="Read the archived WAL between two moments, and show what its transactions did.")
    @with_plain_errors
    def find(context: dg.OpExecutionContext, config: FindConfig, wal_pipeline: WalPipelineResource) -> None:
        from wal_pipeline.orchestration.jobs.find.run import run_find

        run_find(context, config, wal_pipeline, keys)

    @dg.job(
        name=FIND_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Somebody deleted something: find which transaction, in the archived WAL. Nothing is written. The result "
            "is the asset found_transactions, with what to start next."
        ),
    )
    def find_transactions() -> None:
        find()

    return find_transactions
