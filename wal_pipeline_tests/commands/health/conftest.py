"""Fixtures of the health's tests."""

from pathlib import Path

import pytest

from wal_pipeline_tests.support.health_scene import HealthScene, healthy_scene


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    """An archive of ten segments with a base backup: nothing needs a person."""
    return healthy_scene(tmp_path)
