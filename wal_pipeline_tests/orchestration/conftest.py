"""Gives the tests of Dagster's code an instance, and an archive behind its resource."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.health_scene import HealthScene, scene_in_settings


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HealthScene:
    """The archive that Dagster's code sees, now, and a server that is not there."""
    return scene_in_settings(tmp_path, monkeypatch)


@pytest.fixture
def resource(tmp_path: Path) -> WalPipelineResource:
    """A resource of this test alone: a process keeps each opened resource by the name of its settings file."""
    (tmp_path / "empty.env").write_text("")
    return WalPipelineResource(env_file=str(tmp_path / "empty.env"))
