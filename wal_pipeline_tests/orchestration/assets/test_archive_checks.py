"""Tests that each asset check on the stores judges its own asset."""

import dagster as dg

from wal_pipeline.orchestration.assets.archive_checks import build_archive_checks, build_check_job
from wal_pipeline.orchestration.assets.drill import build_drill_asset
from wal_pipeline.orchestration.assets.recovery_window import build_window_asset
from wal_pipeline.orchestration.assets.segments import build_segment_assets
from wal_pipeline.orchestration.assets.wal.spool import build_spool_asset
from wal_pipeline.orchestration.resource import WalPipelineResource
from wal_pipeline_tests.support.health_pipeline import KEYS
from wal_pipeline_tests.support.health_scene import STORES, SYSTEM, HealthScene, name


def test_checks(scene: HealthScene, resource: WalPipelineResource, instance: dg.DagsterInstance) -> None:
    """A file that one store lacks fails two checks of that store, and no check of another."""
    scene.catalog.files.remove_copy(SYSTEM, [name(5)], "b2")
    checks = build_archive_checks(KEYS, STORES)
    spec_keys = [KEYS.base_backup(store) for store in STORES]
    definitions = dg.Definitions(
        assets=[
            build_spool_asset(KEYS),
            build_segment_assets(KEYS, STORES),
            build_window_asset(KEYS, STORES),
            build_drill_asset(KEYS, STORES),
            *(dg.AssetSpec(key) for key in spec_keys),
        ],
        asset_checks=[checks],
        jobs=[build_check_job(KEYS, checks)],
        resources={"wal_pipeline": resource},
    )
    result = definitions.resolve_job_def("check_archive").execute_in_process(instance=instance)
    verdicts = {(one.asset_key.path[-1], one.check_name): one.passed for one in result.get_asset_check_evaluations()}
    assert {key for key, passed in verdicts.items() if not passed} == {
        ("b2", "no_gap"),
        ("b2", "every_file"),
        ("recovery_window", "no_gap_inside_b2"),
        ("recovery_drill", "last_drill_r2"),
        ("recovery_drill", "last_drill_b2"),
    }
    assert verdicts["spool", "under_limit"]
    assert verdicts["r2", "newest_fresh"]
