"""Tests that the UI names on each asset's page what updates it, and that a connected sensor starts its own job."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.orchestration.sensors.links import LinkedSensor
from wal_pipeline_tests.support.dagster_graphql import DagsterUi, dagster_ui
from wal_pipeline_tests.support.health_pipeline import KEYS, some_job
from wal_pipeline_tests.support.health_scene import HealthScene

_UPDATES = "jobNames isMaterializable targetingInstigators { ... on Sensor { name } ... on Schedule { name } }"
_SENSOR = """
query Sensor($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) { ... on Sensor { targets { pipelineName } } }
}"""
_JOB = """
query Job($selector: PipelineSelector!) {
  pipelineOrError(params: $selector) { ... on Pipeline { isAssetJob } }
}"""


@pytest.fixture
def ui(scene: HealthScene, tmp_path: Path) -> Iterator[DagsterUi]:
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance, dagster_ui(instance) as made:
        yield made


def test_each_asset_names_what_updates_it(ui: DagsterUi) -> None:
    """A person sees on an asset's page which sensor or schedule to look at where it is not up to date."""
    wanted = {
        KEYS.spool: {"spool_sensor", "health_sensor"},
        KEYS.wal_segment("r2"): {"spool_sensor", "record_sensor"},
        KEYS.base_backup("b2"): {"record_sensor"},
        KEYS.recovery_window: {"health_sensor"},
        KEYS.open_alerts: {"health_sensor"},
        KEYS.recovery_drill: {"recovery_drill_schedule"},
        KEYS.cost: {"cost_schedule"},
    }
    found = {key: ui.asset(key, _UPDATES)["targetingInstigators"] for key in wanted}
    assert {key: {one["name"] for one in some} for key, some in found.items()} == wanted


def test_the_connected_sensor_starts_the_job_that_it_started(ui: DagsterUi) -> None:
    """The assets are for the page alone: the sensor's target stays the job, which keeps its launchpad."""
    [location] = ui.workspace.create_request_context().code_location_names
    place = {"repositoryName": "__repository__", "repositoryLocationName": location}
    sensor = ui.ask(_SENSOR, selector={**place, "sensorName": "spool_sensor"})["sensorOrError"]
    assert sensor["targets"] == [{"pipelineName": "archive_wal"}]
    job = ui.ask(_JOB, selector={**place, "pipelineName": "archive_wal"})["pipelineOrError"]
    assert job["isAssetJob"] is False


def test_a_connected_sensor_ticks_as_before(instance: dg.DagsterInstance) -> None:
    """A request names no assets: it is one for the sensor's only job."""

    @dg.sensor(job=some_job)
    def starts() -> dg.RunRequest:
        return dg.RunRequest(tags={"a": "b"})

    definitions = dg.Definitions(
        assets=[dg.AssetSpec(KEYS.spool)],
        jobs=[some_job],
        sensors=[LinkedSensor.of(starts, [KEYS.spool])],
        resources={"wal_pipeline": WalPipelineResource()},
    )
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        [request] = repository.get_sensor_def("starts").evaluate_tick(context).run_requests or ()
    assert (request.asset_selection, request.tags["a"]) == (None, "b")
