"""Writes an archiving run's records into Dagster's event log in batches, a second later."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import dagster as dg

from wal_pipeline.commands.archive_push.events import FileReleased
from wal_pipeline.orchestration.runs.batches import Batches
from wal_pipeline.orchestration.runs.event_log import materialization_entry, store_entries


class RunRecords:
    """The materializations of one run, and the log lines of the files that it released.

    Written one by one they took 19 ms of CPU for each file, in the thread that drives the run. They are held for a
    second. The catalog knows the copies by then, so the job ``record_archive`` finds and writes the records that a
    killed run did not write.
    """

    def __init__(self, context: dg.OpExecutionContext, took: Callable[[float], object] = lambda _seconds: None) -> None:
        """The thread that writes calls ``took`` with the seconds of each batch."""
        self._context = context
        self._took = took
        self._step = context.get_step_execution_context()
        self._batches: Batches[dg.EventLogEntry | FileReleased] = Batches(self._write)

    def __enter__(self) -> Self:
        self._batches.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the held records. Raises: what Dagster's storage raised."""
        self._batches.__exit__(kind, error, trace)

    def materialized(self, materialization: dg.AssetMaterialization) -> None:
        """Record a materialization, with the present moment as its time. Raises: what Dagster's storage raised."""
        self._batches.add(materialization_entry(self._step, materialization))

    def released(self, event: FileReleased) -> None:
        """Log that a file left the spool, with the seconds of each step. Raises: what Dagster's storage raised."""
        self._batches.add(event)

    def _write(self, batch: Sequence[dg.EventLogEntry | FileReleased]) -> None:
        begun = time.monotonic()
        entries = [one for one in batch if isinstance(one, dg.EventLogEntry)]
        store_entries(self._context.instance.event_log_storage, entries)
        released = [one for one in batch if isinstance(one, FileReleased)]
        if released:
            self._context.log.info(released_text(released))
        self._took(time.monotonic() - begun)


def released_text(events: Sequence[FileReleased]) -> str:
    """Return the log text of released files, a line for each."""
    lines = [f"{event.file.name} is on every store ({_steps(event)}); released from the spool" for event in events]
    return lines[0] if len(lines) == 1 else "\n".join([f"{len(lines)} files are on every store:", *lines])


def _steps(event: FileReleased) -> str:
    return ", ".join(f"{step} {seconds:.3f} s" for step, seconds in event.seconds.items())
