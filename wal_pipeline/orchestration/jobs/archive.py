"""Defines the archiving run: one op, which drains the spool and records each copy as it goes."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from wal_pipeline.orchestration.jobs.archive_recorder import RunRecorder
from wal_pipeline.orchestration.jobs.step_times import RECORD_IN_DAGSTER
from wal_pipeline.orchestration.keys import ARCHIVE_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.event_batches import RunRecords
from wal_pipeline.orchestration.runs.failures import ALERT_OF_STORE, with_plain_errors
from wal_pipeline.text import counted
from wal_pipeline.wiring.pipeline import Pipeline

if TYPE_CHECKING:
    from wal_pipeline.commands.archive_push.events import ArchiveEvent, CopyFailed
    from wal_pipeline.orchestration.assets.closing_events import Event

_REPORT_SECONDS: Final = 300.0


class ArchiveConfig(dg.Config):
    """``linger_seconds``: how long the run waits for new files. Where it is unset, the setting counts."""

    linger_seconds: float | None = None


def build_archive_job(keys: Keys) -> dg.JobDefinition:
    """Return the archiving run of one cluster. It is one op, because an op for each file would cost seconds."""

    @dg.op(
        out=dg.Out(dg.Nothing),
        description="Take every file that waits in the spool, in WAL order: checksum it, compress it, store it on "
        "every store, read it back, record it, release it. The steps overlap. The times of each file are in its log "
        "line and in its materializations; the output's metadata adds them up for the run. A store that fails does "
        "not delay the others.",
    )
    @with_plain_errors
    def archive_spool(context: dg.OpExecutionContext, config: ArchiveConfig, wal_pipeline: WalPipelineResource):  # type: ignore[no-untyped-def]
        pipeline = wal_pipeline.open()
        linger = pipeline.settings.linger_seconds if config.linger_seconds is None else config.linger_seconds
        recorder = RunRecorder(context, keys, pipeline.settings.stores)
        yield from _record_events(context, keys, pipeline, recorder, linger_seconds=linger)
        _raise_failures(recorder)
        context.add_output_metadata(_metadata(recorder))
        yield dg.Output(None)

    @dg.job(
        name=ARCHIVE_JOB,
        executor_def=dg.in_process_executor,
        tags=keys.tags,
        description=keys.described(
            "Archive the spool to every store. The spool sensor starts it; start it by hand to retry at once."
        ),
    )
    def archive_wal() -> None:
        archive_spool()

    return archive_wal


def _record_events(
    context: dg.OpExecutionContext, keys: Keys, pipeline: Pipeline, recorder: RunRecorder, *, linger_seconds: float
) -> "Iterator[Event]":
    """Archive and record, and report the recovery window whenever the spool is empty, and at the end.

    A run lingers for hours, and the UI must not show a recovery window as old as that. A run that is interrupted while
    it only waits for files has done all that it had to do: it is a service that was restarted, and no failure.
    """
    from wal_pipeline.orchestration.assets.closing_events import Stored, closing_events
    from wal_pipeline.wiring.archive_push import archive_now

    reported_at = float("-inf")
    run = archive_now(pipeline, linger_seconds=linger_seconds, by=f"run {context.run_id}")
    with closing(run) as events:  # type: ignore[type-var]
        is_over = False
        while not is_over:
            with RunRecords(context, lambda seconds: recorder.times.add(RECORD_IN_DAGSTER, seconds)) as records:
                is_over = _record_until_report_is_due(context, events, recorder, records, reported_at + _REPORT_SECONDS)
            reported_at = time.monotonic()
            yield from closing_events(keys, pipeline, context.instance, Stored(recorder.take_stored()), context.log)


def _record_until_report_is_due(
    context: dg.OpExecutionContext,
    events: "Iterator[ArchiveEvent]",
    recorder: RunRecorder,
    records: RunRecords,
    due_at: float,
) -> bool:
    """Record events until the run's end (True), or until the spool is empty after ``due_at`` (False)."""
    try:
        for event in events:
            recorder.record(event, records)
            if recorder.is_idle and time.monotonic() >= due_at and recorder.stored:
                return False
    except DagsterExecutionInterruptedError:
        if not recorder.is_idle:
            raise
        context.log.info("the run was told to end while it waited for files")
    return True


def _metadata(recorder: RunRecorder) -> dict[str, dg.MetadataValue]:
    """Return what the run did and where its time went: its one op shows no steps."""
    found: dict[str, dg.MetadataValue] = {
        "answer": dg.MetadataValue.text(recorder.times.sentence(recorder.released)),
        "where_the_time_went": recorder.times.table(),
    }
    if recorder.quarantined:
        found["files_quarantined"] = dg.MetadataValue.int(len(recorder.quarantined))
    return found | {"files_released": dg.MetadataValue.int(recorder.released)}


def _texts(pairs: Iterable[tuple[str, str]]) -> dict[str, dg.MetadataValue]:
    return {name: dg.MetadataValue.text(text) for name, text in pairs}


def _raise_failures(recorder: RunRecorder) -> None:
    """Fail the run, after all other work, where a copy is missing or a file is stuck."""
    if recorder.failures:
        last = {store: failed for (_, store), failed in sorted(recorder.failures.items())}
        raise dg.Failure(
            description=_failed_text([last[store] for store in sorted(last)]),
            metadata=_texts((store, last[store].message) for store in sorted(last))
            | _texts([(ALERT_OF_STORE, "each store that goes on failing has an alert of its own")])
            | _metadata(recorder),
            allow_retries=False,
        )
    if recorder.stuck:
        name, left = next(iter(recorder.stuck.items()))
        raise dg.Failure(
            description=f"{counted(len(recorder.stuck), 'file')} stuck in the spool, first '{name}': {left.message}",
            metadata=_texts((one, stuck.message) for one, stuck in list(recorder.stuck.items())[:20])
            | _metadata(recorder),
            allow_retries=False,
        )


def _failed_text(last: "Sequence[CopyFailed]") -> str:
    """Return what each store said last, what becomes of the files, and the first hint."""
    text = f"{'; '.join(one.message for one in last)}; the spool keeps every file, and the next run tries again"
    hint = next((one.hint for one in last if one.hint is not None), None)
    return text if hint is None else f"{text}\nHINT: {hint}"
