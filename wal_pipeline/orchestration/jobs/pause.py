"""Defines the jobs that pause archiving and end the pause, as ``wal-pipeline pause`` and ``resume`` do."""

import dagster as dg
from pydantic import Field

from wal_pipeline.commands.pause import length_from_text, pause, resume
from wal_pipeline.orchestration.keys import PAUSE_JOB, RESUME_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.failures import with_plain_errors
from wal_pipeline.text import shown_name


class PauseConfig(dg.Config):
    """How long archiving is paused, and why."""

    length: str = Field("1h", description="How long, such as 30m, 2h or 1d, and at most 7d. The pause ends by itself.")
    reason: str = Field("", description="Shown in status, in the alert and in the audit log.")


def build_pause_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that pauses one cluster's archiving."""

    @dg.op(description="Stop taking new files for a while. The spool keeps everything; mind its disk.")
    @with_plain_errors
    def pause_for_a_while(
        context: dg.OpExecutionContext, config: PauseConfig, wal_pipeline: WalPipelineResource
    ) -> None:
        pipeline, by, reason = wal_pipeline.open(), f"run {context.run_id}", shown_name(config.reason)
        length = length_from_text(config.length)
        made = pause(pipeline.catalog, pipeline.clock(), length=length, reason=reason, by=by)
        pipeline.audit.write("pause", keys.cluster, "paused", until=made.until_at, reason=reason, by=by)
        context.add_output_metadata(
            {"result": made.describe(), "paused_until": dg.MetadataValue.timestamp(made.until_at)}
        )

    @dg.job(
        name=PAUSE_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Pause archiving for a while. PostgreSQL goes on, the spool keeps its WAL, the pause ends by itself."
        ),
    )
    def pause_archiving() -> None:
        pause_for_a_while()

    return pause_archiving


def build_resume_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that ends a pause of one cluster's archiving."""

    @dg.op(description="End the pause now.")
    @with_plain_errors
    def end_the_pause(context: dg.OpExecutionContext, wal_pipeline: WalPipelineResource) -> None:
        pipeline = wal_pipeline.open()
        ended = resume(pipeline.catalog, pipeline.clock())
        result = "was not paused" if ended is None else "resumed"
        pipeline.audit.write("resume", keys.cluster, result, by=f"run {context.run_id}")
        context.add_output_metadata({"result": f"archiving {'goes on' if ended is not None else result}"})

    @dg.job(
        name=RESUME_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described("End a pause of archiving now."),
    )
    def resume_archiving() -> None:
        end_the_pause()

    return resume_archiving
