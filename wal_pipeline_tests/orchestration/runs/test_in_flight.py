"""Tests which runs count as in flight."""

from datetime import UTC, datetime, timedelta, tzinfo

import dagster as dg
import pytest

from wal_pipeline.orchestration.runs import in_flight as runs
from wal_pipeline.orchestration.runs.in_flight import run_in_flight

TAGS = {"wal_pipeline/cluster": "main"}


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.job(name="some_job", tags=TAGS)
def some_job() -> None:
    """Run the one op."""
    nothing()


class Later(datetime):
    """A clock that is eleven minutes ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = UTC) -> datetime:
        return datetime.now(tz) + timedelta(minutes=11)


def test_a_run_that_was_never_launched_is_not_in_flight_for_ever(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without a launch counts for ten minutes; an older run that still runs counts on."""
    running = instance.create_run_for_job(some_job, tags=TAGS, status=dg.DagsterRunStatus.STARTED)
    waiting = instance.create_run_for_job(some_job, tags=TAGS)
    found = run_in_flight(instance, "some_job", TAGS)
    assert found is not None
    assert found.run_id == waiting.run_id
    monkeypatch.setattr(runs, "datetime", Later)
    found = run_in_flight(instance, "some_job", TAGS)
    assert found is not None
    assert found.run_id == running.run_id
