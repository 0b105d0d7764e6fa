"""The restore as a job: the same options as ``wal-pipeline restore``, on the host where the code location runs."""

import dagster as dg

from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource

JOB_NAME = "restore_cluster"


class RestoreConfig(dg.Config):
    """Where to restore to and which moment; ``wal-pipeline restore --help`` explains each.

    ``plan_only`` (the default) writes nothing: read the plan in the run's log, then start the job again without it.
    """

    pgdata: str
    plan_only: bool = True
    to_time: str | None = None
    to_lsn: str | None = None
    to_xid: int | None = None
    to_name: str | None = None
    immediate: bool = False
    inclusive: bool = True
    timeline: str = "latest"
    store: str = "any"
    action: str = "promote"
    base_backup: str | None = None
    system_identifier: int | None = None
    tablespaces: dict[str, str] = {}  # noqa: RUF012 - a pydantic default is copied
    force: bool = False
    owner: str | None = None
    archiving: bool = True
    verify: bool = True
    start: bool = False
    server_settings: dict[str, str] = {}  # noqa: RUF012


def build_restore_job(keys: Keys) -> dg.JobDefinition:
    """Return the job that plans a restore, and does it where it is told to."""

    @dg.op(description="Plan a restore from the stores alone, and, unless plan_only is set, do it.")
    def restore(context: dg.OpExecutionContext, config: RestoreConfig, wal_pipeline: WalPipelineResource) -> None:
        from wal_pipeline.orchestration.restore_run import run_restore

        run_restore(context, keys, config, wal_pipeline)

    @dg.job(
        name=JOB_NAME,
        executor_def=dg.in_process_executor,
        tags={"wal_pipeline/cluster": keys.cluster},
        description="Bring the cluster back to a chosen moment, from the stores alone.",
    )
    def restore_cluster() -> None:
        restore()

    return restore_cluster
