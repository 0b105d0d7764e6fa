"""Defines the sensor that starts the record job while the catalog holds copies that Dagster does not show."""

import json
import time
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from wal_pipeline.orchestration.jobs.unrecorded import catalog_totals, find_unrecorded
from wal_pipeline.orchestration.keys import RECORD_JOB, Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.runs.in_flight import run_in_flight

_LOST_AFTER: Final = timedelta(minutes=15)  # a run of FILES_PER_RUN files is over in a minute or two
_LOOK_AGAIN_SECONDS: Final = 2.0
_INTERVAL_SECONDS: Final = 60
_SHARE: Final = 100  # compare again only after a hundred times as long as comparing took: 1 s at 100,000 files


def build_record_sensor(keys: Keys, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor that starts the job where the catalog holds what Dagster does not show."""

    @dg.sensor(
        name="record_sensor",
        job=job,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Compares the catalog with Dagster's records where the catalog has changed, and starts the job "
        "that adds what was archived by the command line or found by a rebuild.",
    )
    def record_sensor(
        context: dg.SensorEvaluationContext, wal_pipeline: WalPipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        pipeline = wal_pipeline.open()
        catalog, stores, now = pipeline.catalog, pipeline.settings.stores, pipeline.clock()
        totals, cursor = catalog_totals(catalog, stores, now), _cursor(context.cursor)
        if cursor["complete"] == totals:
            return dg.SkipReason("the catalog is as it was when all of it was recorded")
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
        context.log.info(f"{found.count} copies are in the catalog and not among Dagster's records")
        return dg.RunRequest()

    return record_sensor


def _cursor(cursor: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"complete": None, "at": 0.0, "wait_seconds": 0.0}
    return found | (json.loads(cursor) if cursor else {})
