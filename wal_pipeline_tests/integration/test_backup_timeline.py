"""Tests base backups of a standby before and after its promotion, with 64 MB segments."""

from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, give_to_postgres, owned_folder
from wal_pipeline_tests.support.base_backup_scene import Scene, archiving_cluster, folder_store, verify_backup

pytestmark = pytest.mark.integration


def make_standby(primary: PostgresCluster, scene: Scene) -> PostgresCluster:
    """Start a standby from a base backup that was opened with the standard tools."""
    pgdata = owned_folder("standby") / "pgdata"
    scene.unpack(scene.stores[0], scene.take().manifest, pgdata)
    pgdata.chmod(0o700)
    (pgdata / "standby.signal").touch()
    archive = primary.folder / "archive"
    with (pgdata / "postgresql.auto.conf").open("a") as file:
        file.write(f"restore_command = 'cp {archive}/%f %p'\nprimary_conninfo = '{primary.conninfo}'\n")
    give_to_postgres(pgdata)
    settings = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
    return PostgresCluster(primary.install, pgdata=pgdata, settings=settings).start()


def test_a_standby_before_and_after_its_promotion(postgres18: PostgresInstall, tmp_path: Path) -> None:
    """Both are base backups of the same cluster; after the promotion it begins on timeline 2."""
    with archiving_cluster(postgres18, wal_segment_size_mb=64) as primary:
        standby = make_standby(primary, Scene(primary, [folder_store("r2", tmp_path)], tmp_path / "scratch"))
        try:
            scene = Scene(standby, [folder_store("b2", tmp_path)], tmp_path / "scratch")
            before = scene.take().manifest
            assert (before.timeline, before.wal_segment_size) == (1, 64 << 20)
            assert before.required_segments[0].name == before.backup_id[-24:]
            primary.stop()
            standby.promote()
            after = scene.take().manifest
            assert (after.timeline, [item.timeline for item in after.wal_ranges]) == (2, [2])
            assert {name.name[:8] for name in after.required_segments} == {"00000002"}
            assert before.backup_id < after.backup_id
            scene.unpack(scene.stores[0], after, tmp_path / "out")
            assert verify_backup(standby.install, tmp_path / "out") == "backup successfully verified"
        finally:
            standby.remove()
