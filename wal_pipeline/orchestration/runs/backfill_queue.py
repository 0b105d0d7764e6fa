"""Queues the runs of a backfill, so that a thousand of them start one after another; every other run starts at once."""

from typing import Final

import dagster as dg
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.run_coordinator.sync_in_memory_run_coordinator import SyncInMemoryRunCoordinator

BACKFILL_TAG: Final = "dagster/backfill"


class BackfillQueue(dg.QueuedRunCoordinator):
    """Dagster's queued run coordinator for backfills alone. dagster.yaml names it, and limits them by their tag.

    An archiving run, a restore or a base backup waits in no queue: a sensor's run would start seconds later, and a run
    that a person starts would not start at all while the daemon is down. A backfill needs the daemon anyway.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Queue a backfill's run, start any other. Raises: what the run launcher raises."""
        if BACKFILL_TAG in context.dagster_run.tags:
            return super().submit_run(context)
        at_once = SyncInMemoryRunCoordinator()
        at_once.register_instance(self._instance)
        return at_once.submit_run(context)
