"""Describes a rescue: what it brought, where it is, and the progress on the way."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wal_pipeline.commands.restore.perform import RestoreEvents


@dataclass(frozen=True, slots=True)
class RescuedTable:
    """A table with its rows, those of its partitions counted in. ``into`` is its name where it was loaded.

    ``rows`` were counted on the scratch server, and again in the dump or in the target: both are equal.
    """

    name: str
    rows: int
    into: str | None = None


@dataclass(frozen=True, slots=True)
class RescueResult:
    """All that a rescue brought.

    ``output`` is the dump, ``into`` the place of the database that it was loaded into, without credentials. ``seconds``
    by step. ``size_bytes`` are of the tables on the scratch server, ``dump_bytes`` of the dump. ``notes`` say what was
    left out, came along or must be known.
    """

    database: str
    tables: tuple[RescuedTable, ...]
    seconds: Mapping[str, float]
    downloaded_bytes: int
    size_bytes: int
    dump_bytes: int
    reached_commit_at: datetime | None
    reached_lsn: str | None
    output: Path | None = None
    into: str | None = None
    schema: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(table.rows for table in self.tables)


class RescueEvents(RestoreEvents):
    """Receives the progress of a rescue: that of its restore, and its own steps."""

    def step(self, name: str) -> None:
        """A step after the recovery begins: find, count, dump, check, load."""

    def rescued(self, result: RescueResult) -> None:
        """The rows are where they were wanted, and counted there."""


class RescueSteps:
    """Tells of each step, and adds up its seconds."""

    def __init__(self, events: RescueEvents, seconds: dict[str, float]) -> None:
        self._events = events
        self._seconds = seconds

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Tell of a step, and measure it; the seconds of one that comes twice are added."""
        self._events.step(name)
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - begun
