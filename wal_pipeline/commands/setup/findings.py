"""What a look at the server finds: one verdict on one thing, and what mends it."""

from dataclasses import dataclass
from enum import StrEnum

from wal_pipeline.postgres.server import SettingChange


class Level(StrEnum):
    """How good a thing is. A warning works now, but not in every case."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict. ``changes`` are the server settings that mend it, ``lines`` what a person types instead."""

    name: str
    status: Level
    message: str
    changes: tuple[SettingChange, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def mending(self) -> tuple[str, ...]:
        """All lines that mend it, SQL first."""
        return (*(change.line for change in self.changes), *self.lines)
