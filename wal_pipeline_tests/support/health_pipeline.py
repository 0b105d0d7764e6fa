"""Evaluates the health sensor over a health scene, and runs a job that fails while a file lies there."""

from pathlib import Path

import dagster as dg

from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.sensors.health import build_health_sensor

KEYS = Keys("main")


def tick(instance: dg.DagsterInstance, resource: WalPipelineResource, cursor: str | None) -> dg.SensorResult:
    """Evaluate the health sensor once, with the cursor that the tick before returned."""
    sensor = build_health_sensor(KEYS, interval_seconds=60)
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"wal_pipeline": resource}) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def tick_and_report(instance: dg.DagsterInstance, resource: WalPipelineResource, cursor: str | None) -> dg.SensorResult:
    """Evaluate the sensor once, and report its events to the instance, as the daemon does."""
    result = tick(instance, resource, cursor)
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    return result


@dg.op
def breaks(wal_pipeline: WalPipelineResource) -> None:
    """Fail while the file ``broken`` lies in the current folder."""
    if Path("broken").exists():
        raise dg.Failure("the store said no", allow_retries=False)


@dg.job(name="some_job", tags={"wal_pipeline/cluster": "main"})
def some_job() -> None:
    """Run the one op."""
    breaks()
