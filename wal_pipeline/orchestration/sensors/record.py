"""Defines the sensor that starts the job record_archive while Dagster lacks copies of the catalog."""

import json
import time
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from wal_pipeline.orchestration.jobs.unrecorded import catalog_totals, find_unrecorded
from wal_pipeline.orchestration.keys import RECORD_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.in_flight import run_in_flight

# A run takes a minute or two. A run that takes much longer was lost, and must not delay the next one.
_LOST_AFTER: Final = timedelta(minutes=15)
_LOOK_AGAIN_SECONDS: Final = 2.0
_INTERVAL_SECONDS: Final = 60
_SHARE: Final = 100  # the next comparison waits a hundred times as long as one took: 1 s at 100,000 files


def build_record_sensor(keys: Keys, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor of one cluster."""

    @dg.sensor(
        name="record_sensor",
        job=job,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags=keys.tags,
        description=keys.described(
            "Compares the catalog with Dagster's records after the catalog changed. Starts the job that adds the "
            "copies that the command line stored or a rebuild found."
        ),
    )
    def record_sensor(
        context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        pipeline = wal_pipeline.open()
        catalog, stores, now = pipeline.catalog, pipeline.settings.stores, pipeline.clock()
        totals, cursor = catalog_totals(catalog, stores, now), _cursor(context.cursor)
        if cursor["complete"] == totals:
            return dg.SkipReason("the catalog has not changed since all of it was recorded")
        if 0 <= now.timestamp() - cursor["at"] < cursor["wait_seconds"]:
            return dg.SkipReason("compared a moment ago")
        if run_in_flight(context.instance, RECORD_JOB, keys.tags, since=now - _LOST_AFTER):
            return dg.SkipReason("a run is recording")
        begun = time.monotonic()
        found = find_unrecorded(context.instance, keys, catalog, stores, now)
        wait_seconds = _SHARE * (time.monotonic() - begun)
        if found.count:
            time.sleep(_LOOK_AGAIN_SECONDS)
            found = found.still(find_unrecorded(context.instance, keys, catalog, stores, now))
        complete = None if found.count else totals
        context.update_cursor(json.dumps({"complete": complete, "at": now.timestamp(), "wait_seconds": wait_seconds}))
        if not found.count:
            return dg.SkipReason("every copy of the catalog is recorded")
        context.log.info(f"Dagster lacks the records of {found.count} copies in the catalog")
        return dg.RunRequest()

    return record_sensor


def _cursor(cursor: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"complete": None, "at": 0.0, "wait_seconds": 0.0}
    return found | (json.loads(cursor) if cursor else {})
