"""Archiving runs whose process is gone although Dagster takes them for started."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg


@dataclass(slots=True)
class LostRunWatch:
    """Tells a run that works from one whose process was lost.

    A run holds the spool's lock from its first file to its last, and the kernel takes the lock back however its
    process ends. The default run launcher notices a killed process while its code server lives; when both go, as in
    a crash of the machine, nobody marks the run as failed, and it would keep all others waiting. So a started run
    that was not seen with the lock for ``limit_seconds`` counts as lost.
    """

    limit_seconds: float
    run_id: str | None = None
    free_since: float = 0.0  # seconds since 1970

    @classmethod
    def from_cursor(cls, cursor: str | None, limit_seconds: float) -> "LostRunWatch":
        """Take up what the tick before saw."""
        try:
            seen = json.loads(cursor or "{}")
            return cls(limit_seconds, seen["run_id"], float(seen["free_since"]))
        except (ValueError, KeyError, TypeError):
            return cls(limit_seconds)

    @property
    def cursor(self) -> str:
        """What the next tick needs to know."""
        return "" if self.run_id is None else json.dumps({"run_id": self.run_id, "free_since": self.free_since})

    def is_lost(self, run: dg.DagsterRun, is_locked: Callable[[], bool], now: float) -> bool:
        """Look once. ``now`` is seconds since 1970; a clock that was set back begins the count again."""
        if run.status is not dg.DagsterRunStatus.STARTED:
            self.run_id = None  # Dagster's own run monitoring bounds how long a run may take to start or to cancel
        elif self.run_id != run.run_id or now < self.free_since:
            self.run_id, self.free_since = run.run_id, now
        elif now - self.free_since >= self.limit_seconds / 2 and is_locked():
            # Not looked at before half of the limit: a look takes the lock for a moment, which a run that is
            # about to begin would run into.
            self.free_since = now
        return self.run_id is not None and now - self.free_since >= self.limit_seconds
