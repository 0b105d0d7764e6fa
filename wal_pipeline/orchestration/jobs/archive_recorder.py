"""Turns an archiving run's events into partitions and materializations."""

from collections import Counter
from collections.abc import Sequence

import dagster as dg

from wal_pipeline.commands.archive_push.events import (
    ArchiveEvent,
    CopyFailed,
    CopyVerified,
    FileQuarantined,
    FileReleased,
    FileSkipped,
    FilesWaiting,
    SpoolEmptied,
)
from wal_pipeline.orchestration.assets.wal.segment_metadata import segment_materialization
from wal_pipeline.orchestration.jobs.step_times import StepTimes
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.runs.event_batches import RunRecords


class RunRecorder:
    """Writes the events of one archiving run into Dagster, and counts them for the run's end."""

    def __init__(self, context: dg.OpExecutionContext, keys: Keys, stores: Sequence[str]) -> None:
        """``is_idle``: the spool is empty, and the run waits for files. ``stored``: copies since the last report.

        ``times``: where the run's time went."""
        self._context = context
        self._keys = keys
        self._stores = stores
        self._partitions_name = keys.wal_partitions_name
        self._partitions: set[str] | None = None
        self._materialized: dict[str, set[str]] = {}
        self._recorded: set[str] = set()
        self.is_idle = False
        self.released = 0
        self.stored: Counter[str] = Counter()
        self.failures: dict[tuple[str, str], CopyFailed] = {}
        self.quarantined: list[FileQuarantined] = []
        self.stuck: dict[str, FileSkipped] = {}
        self.times = StepTimes()

    def record(self, event: ArchiveEvent, records: RunRecords) -> None:
        """Log the event, and record the copy where it stored one."""
        self.is_idle = isinstance(event, SpoolEmptied)
        self.times.note(event)
        match event:
            case FilesWaiting():
                self._add_partitions(event.names)
            case CopyVerified():
                self._verified(event, records)
            case FileReleased():
                self._released(event, records)
            case CopyFailed():
                self.failures[event.name, event.store] = event
                self._context.log.error(f"{event.name} is not on {event.store}: {event.message}")
            case FileQuarantined():
                self.quarantined.append(event)
                self._settled(event.name)
                self._remove_partition(event.name)
                self._context.log.error(f"{event.name} was moved to {event.path}: {event.message}")
            case FileSkipped(needs_help=True):
                self.stuck[event.name] = event
                self._context.log.error(f"{event.name} is stuck in the spool: {event.message}")
            case FileSkipped():
                self._context.log.warning(f"{event.name} stays in the spool: {event.message}")

    def take_stored(self) -> Counter[str]:
        """Return how many copies each store got since the last call."""
        stored, self.stored = self.stored, Counter()
        return stored

    def _verified(self, event: CopyVerified, records: RunRecords) -> None:
        name, store = event.file.name, event.copy.store
        self.failures.pop((name, store), None)
        if not event.is_new and name in self._known(store):
            return  # an earlier run recorded it, unless a crash came between its two records
        self._add_partitions([name])
        self.stored[store] += 1
        self._recorded.add(name)
        records.materialized(segment_materialization(self._keys, event.file, event.copy, event.seconds))

    def _released(self, event: FileReleased, records: RunRecords) -> None:
        self.released += 1
        self._settled(event.file.name)
        records.released(event)

    def _settled(self, name: str) -> None:
        """Drop the failures of a file that has left the spool."""
        self.stuck.pop(name, None)
        for store in self._stores:
            self.failures.pop((name, store), None)

    def _add_partitions(self, names: Sequence[str]) -> None:
        """Add partitions in archiving order, before their files are stored. Ranges in the UI follow that order."""
        if self._partitions is None:
            self._partitions = set(self._context.instance.get_dynamic_partitions(self._partitions_name))
        new = [name for name in names if name not in self._partitions]
        if new:
            self._context.instance.add_dynamic_partitions(self._partitions_name, new)
            self._partitions.update(new)

    def _remove_partition(self, name: str) -> None:
        """Remove the partition of a quarantined file, unless a store has a file of that name."""
        if name not in self._recorded and not any(name in self._known(store) for store in self._stores):
            self._context.instance.delete_dynamic_partition(self._partitions_name, name)
            (self._partitions or set()).discard(name)

    def _known(self, store: str) -> set[str]:
        if store not in self._materialized:
            key = self._keys.wal_segment(store)
            self._materialized[store] = self._context.instance.get_materialized_partitions(key)
        return self._materialized[store]
