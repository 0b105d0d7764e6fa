"""Finds archiving runs that Dagster takes for started although their process is gone."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

_ALIVE_LIMITS: Final = 10
_ASK_SECONDS: Final = 3
_LOOK_AGAIN_SECONDS: Final = 0.5


def process_lives(run: dg.DagsterRun) -> bool:
    """Ask the code server that started a run whether the run's process is alive; False where nobody knows.

    A restarted code server knows nothing of earlier runs. A warm worker's run has no code server.
    """
    try:
        info = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
        client = DagsterGrpcClient(
            host=info["host"],
            port=info.get("port"),
            socket=info.get("socket"),
            use_ssl=bool(info.get("use_ssl", False)),
        )
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_ASK_SECONDS)
    except (ValueError, KeyError, DagsterUserCodeUnreachableError):
        return False
    return deserialize_value(answer, CanCancelExecutionResult).can_cancel


def may_be_lost(run: dg.DagsterRun) -> bool:
    """Whether a run must have a process: it was started, or a code server was told to start it."""
    starting = run.status is dg.DagsterRunStatus.STARTING and GRPC_INFO_TAG in run.tags
    return starting or run.status is dg.DagsterRunStatus.STARTED


def is_still_started(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Look once more, because a run releases the lock a moment before Dagster records its end."""
    time.sleep(_LOOK_AGAIN_SECONDS)
    found = instance.get_run_by_id(run.run_id)
    return found is not None and may_be_lost(found)


@dataclass(slots=True)
class LostRunWatch:
    """Tells a run that works from one whose process was lost.

    A run holds the spool's lock from its first file to its last, and the kernel releases the lock however the process
    ends. The default run launcher notices a killed process while its code server lives. Where both end, as in a crash
    of the machine, nobody marks the run as failed, and all others would wait for it; for a run that was still starting
    they would wait the three minutes that Dagster allows. So a run that was not seen with the lock for
    ``limit_seconds`` counts as lost. A run whose process is alive has archived and updates its records: it has ten
    times as long.
    """

    limit_seconds: float
    run_id: str | None = None
    free_since: float = 0.0  # seconds since 1970
    is_alive: Callable[[dg.DagsterRun], bool] = process_lives

    @classmethod
    def from_cursor(cls, cursor: str | None, limit_seconds: float) -> "LostRunWatch":
        """Return the watch as the tick before left it."""
        try:
            seen = json.loads(cursor or "{}")
            return cls(limit_seconds, seen["run_id"], float(seen["free_since"]))
        except (ValueError, KeyError, TypeError):
            return cls(limit_seconds)

    @property
    def cursor(self) -> str:
        """The state for the next tick, as text."""
        return "" if self.run_id is None else json.dumps({"run_id": self.run_id, "free_since": self.free_since})

    def is_lost(self, run: dg.DagsterRun, is_locked: Callable[[], bool], now: float) -> bool:
        """Look once. ``now`` is in seconds since 1970. After a clock was set back the count begins again."""
        if not may_be_lost(run):
            self.run_id = None  # Dagster's own run monitoring bounds how long a run may take to start or to cancel
        elif self.run_id != run.run_id or now < self.free_since:
            self.run_id, self.free_since = run.run_id, now
        elif now - self.free_since >= self.limit_seconds / 2 and is_locked():
            # No look before half of the limit: it takes the lock for a moment, in which a run that begins would
            # find the lock taken.
            self.free_since = now
        free_seconds = now - self.free_since
        if self.run_id is None or free_seconds < self.limit_seconds:
            return False
        return free_seconds >= _ALIVE_LIMITS * self.limit_seconds or not self.is_alive(run)
