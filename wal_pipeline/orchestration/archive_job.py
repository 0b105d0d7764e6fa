"""The archiving run: one op that drains the spool and records what it does as it goes."""

from collections import Counter
from collections.abc import Sequence

import dagster as dg

from wal_pipeline.commands.archive_alerts import ArchiveAlerts
from wal_pipeline.commands.archive_events import (
    ArchiveEvent,
    CopyFailed,
    CopyVerified,
    FileLeft,
    FileQuarantined,
    FileReleased,
    FilesWaiting,
)
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.run_records import RunRecords
from wal_pipeline.orchestration.segment_metadata import segment_materialization
from wal_pipeline.orchestration.warm_queue import QUEUE_TAG, warm_queue

JOB_NAME = "archive_wal"


class ArchiveConfig(dg.Config):
    """``linger_seconds``: how long the run waits for new files; unset, the setting counts."""

    linger_seconds: float | None = None


class RunRecorder:
    """Turns what happens in an archiving run into Dagster's records."""

    def __init__(self, context: dg.OpExecutionContext, keys: Keys, stores: Sequence[str], records: RunRecords) -> None:
        self._context = context
        self._records = records
        self._keys = keys
        self._stores = stores
        self._partitions_name = keys.wal_partitions_name
        self._partitions: set[str] | None = None
        self._materialized: dict[str, set[str]] = {}
        self._recorded: set[str] = set()
        self.released = 0
        self.stored: Counter[str] = Counter()
        self.failures: dict[tuple[str, str], CopyFailed] = {}
        self.quarantined: list[FileQuarantined] = []
        self.stuck: dict[str, FileLeft] = {}

    def record(self, event: ArchiveEvent) -> None:
        """Log the event, and record what it stored."""
        match event:
            case FilesWaiting():
                self._add_partitions(event.names)
            case CopyVerified():
                self._verified(event)
            case FileReleased():
                self._released(event)
            case CopyFailed():
                self.failures[event.name, event.store] = event
                self._context.log.error(f"{event.name} is not on {event.store}: {event.message}")
            case FileQuarantined():
                self.quarantined.append(event)
                self._settled(event.name)
                self._remove_partition(event.name)
                self._context.log.error(f"{event.name} was moved to {event.path}: {event.message}")
            case FileLeft(needs_help=True):
                self.stuck[event.name] = event
                self._context.log.error(f"{event.name} is stuck in the spool: {event.message}")
            case FileLeft():
                self._context.log.warning(f"{event.name} was left in the spool: {event.message}")

    def _verified(self, event: CopyVerified) -> None:
        name, store = event.file.name, event.copy.store
        self.failures.pop((name, store), None)
        if not event.is_new and name in self._known(store):
            return  # an earlier run has recorded it; only a crash between its two records leaves one out
        self._add_partitions([name])
        self.stored[store] += 1
        self._recorded.add(name)
        self._records.materialized(segment_materialization(self._keys, event.file, event.copy, event.seconds))

    def _released(self, event: FileReleased) -> None:
        self.released += 1
        self._settled(event.file.name)
        self._records.released(event)

    def _settled(self, name: str) -> None:
        """Forget the troubles of a file that has left the spool: they are over."""
        self.stuck.pop(name, None)
        for store in self._stores:
            self.failures.pop((name, store), None)

    def _add_partitions(self, names: Sequence[str]) -> None:
        """Add partitions in archiving order, before their files are stored: the UI's ranges follow that order."""
        if self._partitions is None:
            self._partitions = set(self._context.instance.get_dynamic_partitions(self._partitions_name))
        new = [name for name in names if name not in self._partitions]
        if new:
            self._context.instance.add_dynamic_partitions(self._partitions_name, new)
            self._partitions.update(new)

    def _remove_partition(self, name: str) -> None:
        """Remove the partition of a file that is not archived, unless a store has a file of that name."""
        if name not in self._recorded and not any(name in self._known(store) for store in self._stores):
            self._context.instance.delete_dynamic_partition(self._partitions_name, name)
            (self._partitions or set()).discard(name)

    def _known(self, store: str) -> set[str]:
        if store not in self._materialized:
            key = self._keys.wal_segment(store)
            self._materialized[store] = self._context.instance.get_materialized_partitions(key)
        return self._materialized[store]


def build_archive_job(keys: Keys) -> dg.JobDefinition:
    """Return the archiving run of one cluster. It runs in one process: an op each would cost seconds a file."""

    @dg.op(
        out=dg.Out(dg.Nothing),
        description="Take every file that waits in the spool, in WAL order: checksum, compress, store on every store, "
        "read back, record, release. The steps overlap; each file's times stand in its log line and its "
        "materializations. A store that fails holds back no other one.",
    )
    def archive_spool(context: dg.OpExecutionContext, config: ArchiveConfig, wal_pipeline: WalPipelineResource):  # type: ignore[no-untyped-def]
        pipeline = wal_pipeline.open()
        linger = pipeline.settings.linger_seconds if config.linger_seconds is None else config.linger_seconds
        alerts = ArchiveAlerts(pipeline.catalog, pipeline.clock)
        events = pipeline.archiver(linger_seconds=linger).drain(pipeline.pause_watch())
        with RunRecords(context) as records:
            recorder = RunRecorder(context, keys, pipeline.settings.stores, records)
            for event in pipeline.audit.follow(events, by=f"run {context.run_id}"):
                alerts.note(event)
                recorder.record(event)
        from wal_pipeline.orchestration.verdicts import Stored, closing_events

        yield from closing_events(keys, pipeline, context.instance, Stored(recorder.stored), context.log)
        context.add_output_metadata(
            {"files_released": recorder.released, "files_quarantined": len(recorder.quarantined)}
        )
        _raise_failures(recorder)
        yield dg.Output(None)

    @dg.job(
        name=JOB_NAME,
        executor_def=dg.in_process_executor,
        tags={"wal_pipeline/cluster": keys.cluster, QUEUE_TAG: warm_queue(keys.cluster)},
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
