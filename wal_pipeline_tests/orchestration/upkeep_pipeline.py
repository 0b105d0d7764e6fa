"""Dagster over an upkeep scene: the real jobs and checks, with the scene's stores, catalog and clock."""

from typing import ClassVar

from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring import Pipeline
from wal_pipeline_tests.commands.upkeep_scene import CLUSTER, UpkeepScene

KEYS = Keys(CLUSTER)
STORES = ("r2", "b2")


class SceneResource(WalPipelineResource):
    """The door, with a scene behind it; one at a time."""

    pipeline: ClassVar[Pipeline]

    def open(self) -> Pipeline:
        return self.pipeline


def scene_resource(scene: UpkeepScene, **settings: str) -> SceneResource:
    """Put a scene behind the door."""
    SceneResource.pipeline = scene_pipeline(scene, **settings)
    return SceneResource()


def scene_pipeline(scene: UpkeepScene, **settings: str) -> Pipeline:
    """Return a pipeline of the settings, with the scene's stores and catalog."""
    spool = scene.folder / "spool"
    spool.mkdir(exist_ok=True)
    (settings_file := scene.folder / "settings.env").touch()
    given = {
        "PG_WAL_ARCHIVE_DIR": str(spool),
        "WAL_PIPELINE_STATE_DIR": str(scene.folder / "state"),
        "WAL_PIPELINE_RETENTION_DAYS": str(scene.rule.window.days),
        "WAL_PIPELINE_MIN_BASE_BACKUPS": str(scene.rule.minimum_backups),
    }
    pipeline = Pipeline(load_settings({**given, **settings}, settings_file), scene.clock)
    pipeline.__dict__.update(stores=dict(scene.stores), catalog=scene.catalog)
    return pipeline
