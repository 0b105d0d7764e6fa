"""Which runs of a job are under way."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import dagster as dg

_IN_FLIGHT: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def run_in_flight(
    instance: dg.DagsterInstance, job_name: str, tags: Mapping[str, str], *, since: datetime | None = None
) -> dg.DagsterRun | None:
    """Return the newest run of a job that has not ended; with ``since``, only one that was made after it."""
    wanted = dg.RunsFilter(job_name=job_name, statuses=list(_IN_FLIGHT), tags=dict(tags), created_after=since)
    found = instance.get_run_records(wanted, limit=1)
    return found[0].dagster_run if found else None
