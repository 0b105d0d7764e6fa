"""Adds up where an archiving run's time went, step by step, and shows it as a table."""

import time
from collections import Counter
from collections.abc import Callable

import dagster as dg

from wal_pipeline.commands.archive_push.events import ArchiveEvent, CopyVerified, FileReleased, SpoolEmptied
from wal_pipeline.text import counted, length

READ: dict[str, str] = {"checksum": "read and checksum", "compress": "compress"}
_MOST_NAMED = 3
RECORD = "record in the catalog"
RECORD_IN_DAGSTER = "record in Dagster"
WAIT = "wait for files"


class StepTimes:
    """The seconds of each step of one run. The steps of different files overlap, so their sum may exceed the run."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._begun = monotonic()
        self._idle_since: float | None = None
        self._seconds: Counter[str] = Counter()
        self._times: Counter[str] = Counter()
        self._read: set[str] = set()

    def add(self, step: str, seconds: float) -> None:
        """Add the time that one file, or one batch of records, took for a step."""
        self._seconds[step] += seconds  # type: ignore[assignment]
        self._times[step] += 1

    def note(self, event: ArchiveEvent) -> None:
        """Take the times from an event, and count the time since the spool was empty as waiting."""
        self._end_wait()
        match event:
            case SpoolEmptied():
                self._idle_since = self._monotonic()
            case CopyVerified():
                self._copy(event)
            case FileReleased():
                self._read.discard(event.file.name)
            case _:
                pass

    def sentence(self, released: int) -> str:
        """Say what the run did and which steps took longest, on one line."""
        self._end_wait()
        longest = [step for step, _ in self._seconds.most_common(_MOST_NAMED)]
        parts = ", ".join(f"{step} {_shown(self._seconds[step])}" for step in longest)
        files = f"{counted(released, 'file')} in {_shown(self._monotonic() - self._begun)}"
        return f"{files}: {parts}" if parts else files

    def table(self) -> dg.TableMetadataValue:
        """Return a row for each step, in the order in which a file goes through them, and one for the whole run."""
        self._end_wait()
        stored = sorted(step for step in self._seconds if step.startswith("store "))
        steps = [*READ.values(), *stored, RECORD, RECORD_IN_DAGSTER, WAIT]
        rows = [self._row(step) for step in steps if self._times[step]]
        whole = {"step": "the whole run (steps overlap)", "time": _shown(self._monotonic() - self._begun)}
        return dg.MetadataValue.table([*rows, dg.TableRecord({**whole, "times": 1, "each": whole["time"]})])

    def _row(self, step: str) -> dg.TableRecord:
        seconds, times = self._seconds[step], self._times[step]
        return dg.TableRecord({"step": step, "time": _shown(seconds), "times": times, "each": _shown(seconds / times)})

    def _copy(self, event: CopyVerified) -> None:
        if event.file.name not in self._read:
            self._read.add(event.file.name)
            for key, step in READ.items():
                if key in event.seconds:
                    self.add(step, event.seconds[key])
        if not event.is_new:
            return
        self.add(f"store and read back on {event.copy.store}", event.copy.store_seconds or 0.0)
        self.add(RECORD, event.seconds.get("record", 0.0))

    def _end_wait(self) -> None:
        if self._idle_since is not None:
            self.add(WAIT, self._monotonic() - self._idle_since)
            self._idle_since = None


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else length(seconds)
