"""Archiving runs whose process is gone although Dagster takes them for started."""

import json
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


def process_lives(run: dg.DagsterRun) -> bool:
    """Ask the code server that started a run whether its process is there; False where that cannot be told.

    A code server that was started anew knows nothing of the runs of the one before. A warm worker's run has none.
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
    """Whether a run has a process: one that is starting has, once a code server was told to start it."""
    starting = run.status is dg.DagsterRunStatus.STARTING and GRPC_INFO_TAG in run.tags
    return starting or run.status is dg.DagsterRunStatus.STARTED


@dataclass(slots=True)
class LostRunWatch:
    """Tells a run that works from one whose process was lost.

    A run holds the spool's lock from its first file to its last, and the kernel takes the lock back however its
    process ends. The default run launcher notices a killed process while its code server lives; when both go, as in
    a crash of the machine, nobody marks the run as failed, and it would keep all others waiting; one that was still
    starting for as long as Dagster allows for that, three minutes. So a run
    that was not seen with the lock for ``limit_seconds`` counts as lost. One whose process is seen alive, which has
    archived and brings its records up to date, has ten times as long.
    """

    limit_seconds: float
    run_id: str | None = None
    free_since: float = 0.0  # seconds since 1970
    is_alive: Callable[[dg.DagsterRun], bool] = process_lives

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
        if not may_be_lost(run):
            self.run_id = None  # Dagster's own run monitoring bounds how long a run may take to start or to cancel
        elif self.run_id != run.run_id or now < self.free_since:
            self.run_id, self.free_since = run.run_id, now
        elif now - self.free_since >= self.limit_seconds / 2 and is_locked():
            # Not looked at before half of the limit: a look takes the lock for a moment, which a run that is
            # about to begin would run into.
            self.free_since = now
        free_seconds = now - self.free_since
        if self.run_id is None or free_seconds < self.limit_seconds:
            return False
        return free_seconds >= _ALIVE_LIMITS * self.limit_seconds or not self.is_alive(run)
