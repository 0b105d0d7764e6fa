"""Base backups of the method ``local`` of real servers under load: opened with standard tools, and started."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, give_to_postgres, owned_folder
from wal_pipeline.archive.format.base_backup.file_index import IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.base_backup.manifest_json import parse_manifest
from wal_pipeline.archive.records import BackupKind, BackupMethod, Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.method import ChosenMethod
from wal_pipeline.commands.backup.parent import ParentBackup, choose_parent, fetch_parent
from wal_pipeline.commands.backup.session import BackupPhase, BackupProgress
from wal_pipeline.commands.inventory.wholeness import find_fault
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline_tests.support.archive_scene import WatchedStore
from wal_pipeline_tests.support.base_backup_scene import (
    MIB,
    Scene,
    archiving_cluster,
    folder_store,
    read,
    verify_backup,
)
from wal_pipeline_tests.support.opened_volumes import open_volumes, read_index

pytestmark = pytest.mark.integration
LOCAL = ChosenMethod(BackupMethod.LOCAL)


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster of each version that archives, with a tablespace, an unlogged table and pgbench's."""
    with archiving_cluster(postgres_version) as made:
        made.pgbench_init(scale=2)
        made.psql(f"CREATE TABLESPACE elsewhere LOCATION '{owned_folder('space')}'")
        made.psql("CREATE TABLE spaced TABLESPACE elsewhere AS SELECT g, md5(g::text) FROM generate_series(1, 9999) g")
        made.psql("CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS one; CREATE TABLE empty (a int); CHECKPOINT")
        yield made
        shutil.rmtree(made.value("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'elsewhere'"))


def _parent(scene: Scene, manifest: BaseBackupManifest, folder: Path) -> ParentBackup:
    places = scene.places
    return fetch_parent(places, choose_parent(places, manifest.backup_id), identities=[], folder=folder)


def _settle(cluster: PostgresCluster) -> None:
    """Let nothing change any more, and every file's time be older than a base backup's start by more than it says."""
    cluster.psql("ALTER SYSTEM SET autovacuum = off; SELECT pg_reload_conf(); VACUUM FREEZE; CHECKPOINT")
    long_ago = time.time() - 3600
    for path in (cluster.pgdata / "base").rglob("*"):
        os.utime(path, (long_ago, long_ago))


def _require_indexed(to: Path, files: Mapping[str, IndexedFile]) -> None:
    """Compare each file with its checksum in the index; what a referred volume held besides is removed."""
    for path in [one for one in to.rglob("*") if one.is_file() and str(one.relative_to(to)) not in files]:
        path.unlink()
    for name, file in files.items():
        if not file.is_folder:
            assert f"{google_crc32c.value((to / name).read_bytes()):08x}" == file.crc32c, name


@pytest.fixture
def scene(cluster: PostgresCluster, tmp_path: Path) -> Scene:
    """The cluster and two local folders."""
    return Scene(cluster, [folder_store("r2", tmp_path), folder_store("b2", tmp_path)], tmp_path / "scratch")


def _options(scene: Scene) -> dict[str, Any]:
    return {"method": LOCAL, "pgdata": scene.cluster.pgdata, "workers": 3, "volume_size_bytes": 4 * MIB}


def _recovered(cluster: PostgresCluster, opened: Path) -> Iterator[PostgresCluster]:
    """Start a server in the opened folder, with its tablespaces beside it, and recover to the archive's end."""
    pgdata = owned_folder("recovered") / "pgdata"
    shutil.copytree(opened, pgdata, symlinks=True)
    lines = []
    for line in (pgdata / "tablespace_map").read_text().splitlines():
        oid = line.split()[0]
        (pgdata / "pg_tblspc" / oid).rename(pgdata.parent / oid)
        lines.append(f"{oid} {pgdata.parent / oid}\n")
    (pgdata / "tablespace_map").write_text("".join(lines))
    (pgdata / "recovery.signal").touch()
    pgdata.chmod(0o700)
    give_to_postgres(pgdata.parent)
    settings = {"restore_command": f"cp {cluster.folder}/archive/%f %p", "archive_mode": "off"}
    copy = PostgresCluster(cluster.install, pgdata.parent, pgdata=pgdata, settings=settings)
    try:
        yield copy.start()
    finally:
        copy.remove()


def test_a_server_under_load_is_read_whole_and_recovers(scene: Scene, tmp_path: Path) -> None:
    """Standard tools open the volumes, pg_verifybackup accepts them, and every row that was committed is there."""
    cluster, (r2, b2) = scene.cluster, scene.stores
    seen: list[BackupProgress] = []
    load = cluster.start_pgbench(seconds=600)
    try:
        result = scene.take(on_progress=seen.append, **_options(scene))
    finally:
        load.stop()
    manifest = result.manifest
    assert (result.stored_on, manifest.method, manifest.report.is_empty) == (("r2", "b2"), BackupMethod.LOCAL, True)
    assert [read(r2, key) for key in scene.keys(r2)] == [read(b2, key) for key in scene.keys(b2)]
    stored = read(r2, scene.layout.manifest_key(manifest.backup_id))
    assert parse_manifest(stored, backup_id=manifest.backup_id) == manifest
    held = {item.key.rpartition("/")[2]: item for item in r2.list(scene.layout.base_root)}
    assert find_fault(manifest, held) is None
    opened = open_volumes(scene.place(r2), manifest, tmp_path / "opened")
    assert verify_backup(cluster.install, opened) == "backup successfully verified"
    index = read_index(scene.place(r2), manifest)
    files = {str(path.relative_to(opened)): path for path in opened.rglob("*") if path.is_file()}
    assert {path: f"{google_crc32c.value(one.read_bytes()):08x}" for path, one in files.items()} == {
        path: file.crc32c for path, file in index.files.items() if not file.is_folder
    }
    assert any(len(file.parts) > 1 for file in index.files.values())
    assert [(space.oid, space.location) for space in manifest.tablespaces] != []
    phases = [one.phase for one in seen]
    assert (phases[-1], BackupPhase.COPYING in phases) == (BackupPhase.VERIFYING, True)
    assert seen[-1].read_bytes > 0
    assert seen[-1].total_bytes is not None
    cluster.psql("SELECT pg_switch_wal()")
    wanted = cluster.value("SELECT count(*), sum(abalance) FROM pgbench_accounts")
    for copy in _recovered(cluster, opened):
        copy.wait_promoted()
        assert copy.value("SELECT count(*), sum(abalance) FROM pgbench_accounts") == wanted
        assert copy.value("SELECT count(*) FROM spaced") == "9999"
        assert copy.value("SELECT count(*) FROM unlogged") == "0"
        copy.run("pg_amcheck", "--install-missing", "--heapallindexed", "postgres")
        copy.stop()
        copy.run("pg_checksums", "--check", "--pgdata", str(copy.pgdata))


def test_a_damaged_page_is_named_and_loses_nothing(scene: Scene, tmp_path: Path) -> None:
    """The base backup is whole on both stores, holds the page as the disk has it, and says which one it is."""
    cluster = scene.cluster
    cluster.psql("DROP TABLE IF EXISTS hurt; CREATE TABLE hurt AS SELECT g FROM generate_series(1, 9999) g; CHECKPOINT")
    path = cluster.value("SELECT pg_relation_filepath('hurt')")
    cluster.psql("CHECKPOINT; SELECT pg_switch_wal()")
    with (cluster.pgdata / path).open("r+b") as file:
        file.seek(7 * 8192 + 5000)
        right = file.read(1)
        file.seek(7 * 8192 + 5000)
        file.write(bytes([right[0] ^ 1]))
        file.flush()
        try:
            result = scene.take(**_options(scene))
        finally:
            file.seek(7 * 8192 + 5000)
            file.write(right)
    [damaged] = result.manifest.report.damaged_pages
    assert (damaged.file, damaged.blocks, damaged.total) == (path, (7,), 1)
    assert result.stored_on == ("r2", "b2")
    opened = open_volumes(scene.place(scene.stores[0]), result.manifest, tmp_path / "opened")
    assert (opened / path).read_bytes()[7 * 8192 + 5000] == right[0] ^ 1
    assert verify_backup(cluster.install, opened) == "backup successfully verified"
    cluster.psql("DROP TABLE hurt")


def test_a_store_that_fails_midway_is_left_out(cluster: PostgresCluster, tmp_path: Path) -> None:
    """Workers that hand over at the same time go on with the other store."""
    r2, b2 = folder_store("r2", tmp_path), WatchedStore(folder_store("b2", tmp_path))

    def refuse(call: str, key: str) -> None:
        if call in ("put", "begin_upload") and "files.000004" in key:
            raise StoreUnavailableError("b2", "the disk is full")

    b2.before = refuse
    scene = Scene(cluster, [r2, b2], tmp_path / "scratch")
    result = scene.take(**_options(scene))
    assert result.stored_on == ("r2",)
    assert result.failures == {"b2": "b2: the disk is full"}
    opened = open_volumes(scene.place(r2), result.manifest, tmp_path / "opened")
    assert verify_backup(cluster.install, opened) == "backup successfully verified"


def test_an_incremental_one_stores_what_changed_and_refers_to_the_rest(scene: Scene, tmp_path: Path) -> None:
    """It is opened like a full one, from the volumes that it names, and builds on one that builds on another."""
    cluster, place = scene.cluster, scene.place(scene.stores[0])
    _settle(cluster)
    full = scene.take(**_options(scene)).manifest
    cluster.psql("UPDATE pgbench_tellers SET tbalance = 77; CHECKPOINT")
    first = scene.take(parent=_parent(scene, full, tmp_path), **_options(scene)).manifest
    cluster.psql("INSERT INTO spaced VALUES (0, 'new'); CHECKPOINT")
    second = scene.take(parent=_parent(scene, first, tmp_path), **_options(scene)).manifest
    assert [one.kind for one in (full, first, second)] == [BackupKind.FULL, *[BackupKind.INCREMENTAL] * 2]
    assert second.chain == (full.backup_id, first.backup_id)
    assert {volume.backup_id for volume in second.referred} == {full.backup_id}
    accounts = cluster.value("SELECT pg_relation_filepath('pgbench_accounts')")
    index = read_index(place, second)
    parts = index.files[accounts].parts
    assert {second.volumes[part.volume].backup_id for part in parts} == {full.backup_id}
    assert index.start_lsns == {full.backup_id: full.start_lsn, second.backup_id: second.start_lsn}
    assert second.stored_size_bytes < full.stored_size_bytes / 2
    opened = open_volumes(place, second, tmp_path / "opened")
    _require_indexed(opened, index.files)
    assert verify_backup(cluster.install, opened) == "backup successfully verified"


def test_a_file_whose_page_changed_behind_its_time_is_stored_again(scene: Scene, tmp_path: Path) -> None:
    """Size and time are the parent's; the content tells."""
    cluster, place = scene.cluster, scene.place(scene.stores[0])
    _settle(cluster)
    full = scene.take(**_options(scene)).manifest
    accounts = cluster.pgdata / cluster.value("SELECT pg_relation_filepath('pgbench_accounts')")
    before = accounts.stat()
    cluster.psql("UPDATE pgbench_accounts SET abalance = 78 WHERE aid = 5; CHECKPOINT")
    os.truncate(accounts, before.st_size)  # the new version of the row may lie on a new page
    os.utime(accounts, ns=(before.st_atime_ns, before.st_mtime_ns))
    made = scene.take(parent=_parent(scene, full, tmp_path), **_options(scene)).manifest
    path = str(accounts.relative_to(cluster.pgdata))
    parts = read_index(place, made).files[path].parts
    assert {made.volumes[part.volume].backup_id for part in parts} == {made.backup_id}


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.LZ4, Codec.NONE])
def test_every_codec_opens_with_standard_tools(scene: Scene, codec: Codec, tmp_path: Path) -> None:
    """gunzip, lz4 and cat give the same folder."""
    manifest = scene.take(StreamEncoder(codec), **_options(scene)).manifest
    opened = open_volumes(scene.place(scene.stores[1]), manifest, tmp_path / "opened")
    assert verify_backup(scene.cluster.install, opened) == "backup successfully verified"
