"""Defines the job that keeps a list of the cluster's relations."""

import dagster as dg

from wal_pipeline.orchestration.keys import RELATIONS_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors


def build_relations_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that asks the server for its relations and keeps the list on every store."""

    @dg.op(
        description="Ask each database which file node is which table, and keep the list on every store: by it WAL and "
        "files are given names when something was deleted.",
    )
    @with_plain_errors
    def list_relations(context: dg.OpExecutionContext, wal_pipeline: WalPipelineResource) -> None:
        from wal_pipeline.wiring.relations import relation_keeper

        pipeline = wal_pipeline.open()
        with pipeline.audit.work("relations", keys.cluster, by=f"run {context.run_id}") as told:
            kept = relation_keeper(pipeline).keep()
            told.update({"result": kept.describe(), "subject": kept.moment})
        for note in kept.notes:
            context.log.warning(note)
        context.add_output_metadata(
            {
                "result": kept.describe(),
                "relations": kept.relations,
                "databases": kept.databases,
                "stored_bytes": kept.stored_size_bytes,
                "seconds": round(kept.seconds, 3),
            }
        )
        if kept.failures:
            raise dg.Failure(description="; ".join(kept.notes), allow_retries=False)

    @dg.job(
        name=RELATIONS_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described("Keep a list of the relations of all databases now, onto every store."),
    )
    def keep_relations() -> None:
        list_relations()

    return keep_relations
