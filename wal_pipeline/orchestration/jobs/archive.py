"""The archiving run: one op that drains the spool and records what it does as it goes."""

import dagster as dg

from wal_pipeline.orchestration.jobs.archive_recorder import RunRecorder
from wal_pipeline.orchestration.keys import ARCHIVE_JOB, QUEUE_TAG, Keys, warm_queue
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.event_batches import RunRecords


class ArchiveConfig(dg.Config):
    """``linger_seconds``: how long the run waits for new files; unset, the setting counts."""

    linger_seconds: float | None = None


def build_archive_job(keys: Keys) -> dg.JobDefinition:
    """Return the archiving run of one cluster. It runs in one process: an op each would cost seconds a file."""

    @dg.op(
        out=dg.Out(dg.Nothing),
        description="Take every file that waits in the spool, in WAL order: checksum, compress, store on every store, "
        "read back, record, release. The steps overlap; each file's times stand in its log line and its "
        "materializations. A store that fails holds back no other one.",
    )
    def archive_spool(context: dg.OpExecutionContext, config: ArchiveConfig, wal_pipeline: WalPipelineResource):  # type: ignore[no-untyped-def]
        from wal_pipeline.orchestration.assets.closing_events import Stored, closing_events
        from wal_pipeline.wiring.archive_push import archive_now

        pipeline = wal_pipeline.open()
        linger = pipeline.settings.linger_seconds if config.linger_seconds is None else config.linger_seconds
        with RunRecords(context) as records:
            recorder = RunRecorder(context, keys, pipeline.settings.stores, records)
            for event in archive_now(pipeline, linger_seconds=linger, by=f"run {context.run_id}"):
                recorder.record(event)
        yield from closing_events(keys, pipeline, context.instance, Stored(recorder.stored), context.log)
        context.add_output_metadata(
            {"files_released": recorder.released, "files_quarantined": len(recorder.quarantined)}
        )
        _raise_failures(recorder)
        yield dg.Output(None)

    @dg.job(
        name=ARCHIVE_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags | {QUEUE_TAG: warm_queue(keys.cluster)},
        description="Archive the spool to every store. Started by the spool sensor; start it by hand to retry at once.",
    )
    def archive_wal() -> None:
        archive_spool()

    return archive_wal


def _raise_failures(recorder: RunRecorder) -> None:
    """Fail the run where a copy is missing in the end or a file is stuck, after everything else was done."""
    if recorder.failures:
        last = {store: failed.message for (_, store), failed in recorder.failures.items()}
        raise dg.Failure(
            description=f"{', '.join(sorted(last))} failed; every file is kept in the spool and is tried again",
            metadata={store: dg.MetadataValue.text(last[store]) for store in sorted(last)},
            allow_retries=False,
        )
    if recorder.stuck:
        raise dg.Failure(
            description=f"{len(recorder.stuck)} files are stuck in the spool",
            metadata={name: dg.MetadataValue.text(left.message) for name, left in list(recorder.stuck.items())[:20]},
            allow_retries=False,
        )
