"""Tests the picture and the numbers of the recovery window asset."""

from datetime import timedelta

import dagster as dg
import pytest

from wal_pipeline.orchestration.assets.recovery_window import build_window_asset
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import STORES, HealthScene, name


def test_window_asset(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """The asset shows the windows as numbers, and as a picture that the UI shows inline."""
    asset = build_window_asset(KEYS, STORES)
    result = dg.materialize([asset], resources={"wal_pipeline": resource}, instance=instance)
    [event] = result.asset_materializations_for_node("main__recovery_window")
    metadata = event.metadata
    assert str(metadata["picture"].value).startswith("![recovery windows](data:image/svg+xml;base64,")
    assert metadata["can_recover"].value is True
    assert metadata["b2/last_segment"].value == name(10)
    assert (metadata["b2/files"].value, metadata["b2/wal_bytes"].value) == (10, 10 * 200_000)
    assert metadata["r2/base_backup_bytes"].value == 3 * 10**8
    latest_at = scene.now - timedelta(seconds=90)
    assert metadata["all/latest_commit_at"].value == pytest.approx(latest_at.timestamp())
