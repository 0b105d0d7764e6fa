"""Describes one finding about the server or the spool: a verdict, and the lines that mend it."""

from dataclasses import dataclass
from enum import StrEnum

from wal_pipeline.postgres.server import SettingChange


class Level(StrEnum):
    """The verdict on a thing. With a warning it works now, but not in every case."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict. ``changes`` to the server's settings mend the fault, or ``lines`` that a person types."""

    name: str
    status: Level
    message: str
    changes: tuple[SettingChange, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def mending(self) -> tuple[str, ...]:
        """All lines that mend the fault, SQL first."""
        return (*(change.line for change in self.changes), *self.lines)
