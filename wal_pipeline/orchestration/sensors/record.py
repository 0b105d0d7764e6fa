"""Defines the sensor that lets Dagster follow the catalog: it starts a run while the two differ."""

import json
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self

import dagster as dg

from wal_pipeline.orchestration.jobs.unrecorded import Unrecorded, catalog_totals, find_unrecorded
from wal_pipeline.orchestration.jobs.verify import unshown_results
from wal_pipeline.orchestration.keys import BAD_COPIES_JOB, RECORD_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.in_flight import run_in_flight
from wal_pipeline.wiring.pipeline import Pipeline

# A run takes a minute or two. A run that takes much longer was lost, and must not delay the next one.
_LOST_AFTER: Final = timedelta(minutes=15)
_LOOK_AGAIN_SECONDS: Final = 2.0
_INTERVAL_SECONDS: Final = 60
_COMPARE_EVERY: Final = timedelta(days=1)  # what Dagster itself lost, such as a removed run, shows in no total
_SHARE: Final = 100  # after a slow comparison the next waits a hundred times as long as it took
_QUICK_SECONDS: Final = 2.0  # 100,000 files take 1 s; the first one of a process also imports what it needs


def build_record_sensor(keys: Keys, record: dg.JobDefinition, bad_copies: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor of one cluster."""

    @dg.sensor(
        name="record_sensor",
        jobs=[record, bad_copies],
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags=keys.tags,
        description=keys.described(
            "Compares the catalog with Dagster's records after the catalog changed, and once a day. Starts the job "
            "that adds the copies and verdicts that the command line brought, and the job that marks partitions as "
            "failed whose copy was found to be missing or damaged."
        ),
    )
    def record_sensor(
        context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        pipeline = wal_pipeline.open()
        catalog, stores, now = pipeline.catalog, pipeline.settings.stores, pipeline.clock()
        totals, cursor = catalog_totals(catalog, stores, now), _cursor(context.cursor)
        passed = now.timestamp() - cursor["at"]
        if cursor["complete"] == totals and 0 <= passed < _COMPARE_EVERY.total_seconds():
            return dg.SkipReason("the catalog has not changed since all of it was recorded")
        if 0 <= passed < cursor["wait_seconds"]:
            return dg.SkipReason("compared a moment ago")
        since = now - _LOST_AFTER
        if any(run_in_flight(context.instance, job, keys.tags, since=since) for job in (RECORD_JOB, BAD_COPIES_JOB)):
            return dg.SkipReason("a run is recording")
        begun = time.monotonic()
        differs = Differences.found(context.instance, keys, pipeline)
        took_seconds = time.monotonic() - begun
        wait_seconds = 0.0 if took_seconds < _QUICK_SECONDS else _SHARE * took_seconds
        if differs:
            time.sleep(_LOOK_AGAIN_SECONDS)
            differs = differs.still(Differences.found(context.instance, keys, pipeline))
        complete = None if differs else totals
        context.update_cursor(json.dumps({"complete": complete, "at": now.timestamp(), "wait_seconds": wait_seconds}))
        if not differs:
            return dg.SkipReason("Dagster shows what the catalog knows")
        context.log.info(differs.described)
        return [dg.RunRequest(job_name=name) for name in differs.jobs]

    return record_sensor


@dataclass(frozen=True)
class Differences:
    """The differences between catalog and Dagster. ``verdicts``: results of checks that Dagster does not show."""

    copies: Unrecorded
    verdicts: int

    @classmethod
    def found(cls, instance: dg.DagsterInstance, keys: Keys, pipeline: Pipeline) -> Self:
        """Compare the catalog with Dagster. Raises: CatalogError."""
        catalog, stores = pipeline.catalog, pipeline.settings.stores
        copies = find_unrecorded(instance, keys, catalog, stores, pipeline.clock())
        return cls(copies, len(unshown_results(instance, keys, catalog)))

    def still(self, later: Self) -> Self:
        """Return what a later look still finds."""
        return type(self)(self.copies.still(later.copies), min(self.verdicts, later.verdicts))

    def __bool__(self) -> bool:
        """Whether the two differ."""
        return bool(self.jobs)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs that make them equal."""
        is_behind = bool(self.copies.count or self.verdicts)
        return (*([RECORD_JOB] if is_behind else []), *([BAD_COPIES_JOB] if self.copies.bad_count else []))

    @property
    def described(self) -> str:
        """The difference as a line of the log."""
        return (
            f"Dagster lacks the records of {self.copies.count} copies and {self.verdicts} verdicts in the catalog, and "
            f"shows {self.copies.bad_count} copies that are missing or damaged"
        )


def _cursor(cursor: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"complete": None, "at": 0.0, "wait_seconds": 0.0}
    return found | (json.loads(cursor) if cursor else {})
