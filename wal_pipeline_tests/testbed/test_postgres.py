"""Tests that the test bed's PostgreSQL clusters start, crash, come back, promote and archive."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster, start_restored
from testbed.postgres_install import PostgresInstall

pytestmark = pytest.mark.integration
MakeCluster = Callable[..., PostgresCluster]


def test_committed_rows_outlive_a_crash(postgres_version: PostgresInstall, make_cluster: MakeCluster) -> None:
    """After SIGKILL of all its processes the cluster starts again with what was committed."""
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1)
    cluster.start()
    cluster.psql("CREATE TABLE t AS SELECT 7 AS x")
    cluster.kill()
    cluster.start()
    assert cluster.value("SELECT x FROM t") == "7"
    assert cluster.value("SHOW wal_segment_size") == "1MB"
    assert int(cluster.value("SHOW server_version_num")) // 10_000 == postgres_version.version


def test_restored_folder_starts_and_promotes(
    postgres_version: PostgresInstall, make_cluster: MakeCluster, postgres_folder: Path
) -> None:
    """A base backup whose archive command was `cp` is recovered, promoted and takes writes on timeline 2."""
    spool, restored = postgres_folder / "spool", postgres_folder / "restored"
    archive = {"archive_mode": "on", "archive_command": f"mkdir -p {spool} && cp %p {spool}/%f"}
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1, settings=archive)
    cluster.start()
    cluster.run("pg_basebackup", "--pgdata", str(restored), "--checkpoint=fast", "--wal-method=none", "--no-sync")
    cluster.psql("CREATE TABLE t AS SELECT 7 AS x")
    last_segment = cluster.switch_wal()
    cluster.process.wait_until((spool / last_segment).exists)
    cluster.stop()
    (restored / "recovery.signal").touch()
    copy = start_restored(postgres_version, restored, settings={"restore_command": f"cp {spool}/%f %p"})
    try:
        copy.wait_promoted()
        assert copy.psql("SELECT x, timeline_id FROM t, pg_control_checkpoint()") == "7|2"
        assert copy.system_identifier == cluster.system_identifier
    finally:
        copy.remove()
        shutil.rmtree(restored)


def test_each_cluster_has_its_own_system_identifier(
    postgres_version: PostgresInstall, make_cluster: MakeCluster
) -> None:
    """Two clusters made one after the other can share a bucket; a copied one is whole, and outlives a crash."""
    identifiers = set()
    for _ in range(3):
        cluster = make_cluster(postgres_version, wal_segment_size_mb=1)
        before = cluster.system_identifier
        cluster.run("pg_checksums", "--check", "--pgdata", str(cluster.pgdata))
        cluster.start()
        cluster.kill()
        cluster.start()
        assert cluster.value("SELECT system_identifier FROM pg_control_system()") == before
        identifiers.add(before)
    assert len(identifiers) == 3


def test_pgbench_and_tablespace(shared_cluster18: PostgresCluster) -> None:
    """pgbench writes WAL, and a tablespace takes tables."""
    before = shared_cluster18.value("SELECT pg_current_wal_lsn()")
    shared_cluster18.pgbench_init()
    shared_cluster18.pgbench(transactions=20)
    location = shared_cluster18.make_tablespace("extra")
    shared_cluster18.psql("CREATE TABLE elsewhere TABLESPACE extra AS SELECT 1")
    assert shared_cluster18.value(f"SELECT pg_current_wal_lsn() > '{before}'") == "t"
    assert any(location.iterdir())
    shared_cluster18.psql("DROP TABLE elsewhere; DROP TABLESPACE extra;")
    shutil.rmtree(location)
