"""Tests that the cost asset begins with a sentence and a table, and that its numbers are those of the records."""

import dagster as dg

from wal_pipeline.orchestration.assets.cost import build_cost_asset
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import STORES, HealthScene


def test_cost_asset(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """The rows are in the order in which the UI shows them; the numbers, which it plots, are rounded."""
    result = dg.materialize([build_cost_asset(KEYS, STORES)], resources={"wal_pipeline": resource}, instance=instance)
    [event] = result.asset_materializations_for_node("main__cost")
    assert list(event.metadata)[:3] == ["answer", "stores", "USD a month"]
    assert str(event.metadata["answer"].value).startswith("$0.0")
    table = event.metadata["stores"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [(row.data["store"], row.data["stored"]) for row in table.records] == [("r2", "0.30 GB"), ("b2", "0.30 GB")]
    assert event.metadata["r2: stored MiB"].value == round((10 * 200_000 + 3 * 10**8) / 2**20, 1)
    assert isinstance(event.metadata["USD a month"].value, float)
