"""Finds the runs of a job that have not ended."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

_IN_FLIGHT: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


_LAUNCHED_WITHIN: Final = timedelta(minutes=10)
_MOST: Final = 25


def run_in_flight(
    instance: dg.DagsterInstance, job_name: str, tags: Mapping[str, str], *, since: datetime | None = None
) -> dg.DagsterRun | None:
    """Return the newest run of a job that has not ended; with ``since``, only one created after that moment."""
    return next(iter(runs_in_flight(instance, job_name, tags, since=since)), None)


def runs_in_flight(
    instance: dg.DagsterInstance, job_name: str, tags: Mapping[str, str], *, since: datetime | None = None
) -> list[dg.DagsterRun]:
    """Return the runs of a job that have not ended, the newest first.

    A run that was created and not launched within ten minutes does not count: the daemon was killed in between, and
    Dagster never launches such a run.
    """
    wanted = dg.RunsFilter(job_name=job_name, statuses=list(_IN_FLIGHT), tags=dict(tags), created_after=since)
    found = instance.get_run_records(wanted, limit=_MOST)
    now = datetime.now(UTC)
    return [record.dagster_run for record in found if not _is_forgotten(record, now)]


def _is_forgotten(record: dg.RunRecord, now: datetime) -> bool:
    age = now - record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC)
    return record.dagster_run.status is dg.DagsterRunStatus.NOT_STARTED and age > _LAUNCHED_WITHIN
