"""The bytes of the lists count in the cost."""

from pathlib import Path

from wal_pipeline.archive.cost import DEFAULT_PRICES
from wal_pipeline.commands.cost.cost import current_cost
from wal_pipeline.commands.relations.records import put_list_bytes, read_list_bytes
from wal_pipeline_tests.support.health_scene import NOW, HealthScene


def test_the_cost_counts_the_lists_of_a_store(tmp_path: Path) -> None:
    """As the last verification found them; nothing before the first one."""
    scene = HealthScene(tmp_path)
    scene.archive(*range(1, 3))
    before = current_cost(scene.catalog, DEFAULT_PRICES, NOW).usage
    assert read_list_bytes(scene.catalog.values, "r2") == 0
    put_list_bytes(scene.catalog.values, "r2", 5_000)
    after = current_cost(scene.catalog, DEFAULT_PRICES, NOW).usage
    assert after["r2"].stored_bytes == before["r2"].stored_bytes + 5_000
    assert after["b2"] == before["b2"]
