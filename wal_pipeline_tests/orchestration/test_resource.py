"""Tests that the resource records a run's requests at the run's end."""

import dagster as dg
import pytest

from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.health_pipeline import some_job
from wal_pipeline_tests.support.health_scene import HealthScene


def test_requests_are_counted_at_the_end_of_a_run(
    scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests are recorded once for each run, at the end of the resource."""
    told: list[Pipeline] = []

    def note(pipeline: Pipeline) -> None:
        told.append(pipeline)

    monkeypatch.setattr(Pipeline, "record_requests", note)
    assert some_job.execute_in_process(instance=instance, resources={"wal_pipeline": resource}).success
    resource.open()
    assert some_job.execute_in_process(instance=instance, resources={"wal_pipeline": resource}).success
    assert told
