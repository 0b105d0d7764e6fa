"""Tests that the cost asset's numbers are those of the records."""

import dagster as dg

from wal_pipeline.orchestration.assets.cost import build_cost_asset
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import STORES, HealthScene


def test_cost_asset(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """Its numbers are numeric metadata, which the UI plots."""
    result = dg.materialize([build_cost_asset(KEYS, STORES)], resources={"wal_pipeline": resource}, instance=instance)
    [event] = result.asset_materializations_for_node("main__cost")
    assert event.metadata["r2/stored_bytes"].value == 10 * 200_000 + 3 * 10**8
    assert isinstance(event.metadata["month_usd"].value, float)
