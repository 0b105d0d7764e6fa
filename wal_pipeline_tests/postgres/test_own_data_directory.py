"""A folder is proven to be the server's own, and a clone, a standby or a snapshot of it is not taken for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.postgres.own_data_directory import BackupRight, LocalReading, backup_right, judge_local_reading
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline_tests.support.nobody import as_nobody
from wal_pipeline_tests.support.open_wal_scene import make_standby

pytestmark = pytest.mark.integration
GRANT = 'GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO "some one";'


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with a role that has no rights."""
    running = PostgresCluster(postgres_version).initdb(wal_segment_size_mb=1).start()
    running.psql('CREATE ROLE "some one" LOGIN')
    yield running
    running.remove()


@pytest.fixture
def copy(cluster: PostgresCluster) -> Iterator[Path]:
    """A copy of the running cluster's folder, as a snapshot of its file system is one."""
    target = owned_folder("snapshot") / "pgdata"
    shutil.copytree(cluster.pgdata, target, symlinks=True)
    yield target
    shutil.rmtree(target.parent)


def judged(cluster: PostgresCluster, pgdata: Path | None, role: str = "postgres") -> LocalReading:
    server = PostgresServer(cluster.conninfo.replace("user=postgres", f"user='{role}'"))
    return judge_local_reading(server, pgdata, seen_within_seconds=0.2)


def test_the_servers_own_directory_is_proven(cluster: PostgresCluster, tmp_path: Path) -> None:
    """Also by another path, and nothing is left behind in it."""
    (tmp_path / "link").symlink_to(cluster.pgdata)
    assert judged(cluster, cluster.pgdata) == judged(cluster, tmp_path / "link") == LocalReading()
    assert LocalReading().is_possible
    assert list((cluster.pgdata / "pg_snapshots").iterdir()) == []


def test_a_snapshot_of_the_directory_is_not_the_directory(cluster: PostgresCluster, copy: Path) -> None:
    """It has the same system identifier, the same control file and the same postmaster.pid."""
    assert (copy / "postmaster.pid").read_text() == (cluster.pgdata / "postmaster.pid").read_text()
    found = judged(cluster, copy)
    assert found.obstacle == (
        f"'{copy}' is of the same cluster, and yet not the server's own data directory: it does not show what the "
        "server does"
    )
    assert "a clone's or a standby's" in str(found.hint)


def test_a_clone_whose_link_leads_to_the_original_is_not_taken_for_it(cluster: PostgresCluster, copy: Path) -> None:
    """Its link was copied with it, so it does show what the server does."""
    (copy / "pg_snapshots").rmdir()
    (copy / "pg_snapshots").symlink_to(cluster.pgdata / "pg_snapshots")
    assert not judged(cluster, copy).is_possible


@pytest.mark.each_version
def test_a_standby_and_its_primary_are_told_apart(cluster: PostgresCluster) -> None:
    """A standby exports snapshots too."""
    standby = make_standby(cluster.install, cluster).start()
    try:
        assert judged(standby, standby.pgdata).is_possible
        assert not judged(standby, cluster.pgdata).is_possible
        assert not judged(cluster, standby.pgdata).is_possible
    finally:
        standby.remove()


def test_another_clusters_directory_is_told(cluster: PostgresCluster) -> None:
    """By both system identifiers."""
    other = PostgresCluster(cluster.install).initdb(wal_segment_size_mb=4)
    try:
        found = judged(cluster, other.pgdata)
        assert found.obstacle == (
            f"'{other.pgdata}' has the system identifier {other.system_identifier}, the server has "
            f"{cluster.system_identifier}"
        )
    finally:
        other.remove()


def test_a_directory_that_is_not_here_is_told(cluster: PostgresCluster, tmp_path: Path) -> None:
    """The server runs on another host."""
    found = judged(cluster, tmp_path / "none")
    assert found.obstacle == f"'{tmp_path}/none/global/pg_control' cannot be read: No such file or directory"
    assert judged(cluster, None).obstacle == "PGDATA is not set"


def test_a_directory_that_this_user_may_not_read_is_told(cluster: PostgresCluster) -> None:
    """Before anything is begun."""
    if os.geteuid() != 0:
        pytest.skip("needs root")

    def judge() -> None:
        raise RuntimeError(judged(cluster, cluster.pgdata).obstacle)

    assert as_nobody(judge) == f"'{cluster.pgdata}/global/pg_control' cannot be read: Permission denied"
    opened = {cluster.pgdata: 0o700, cluster.pgdata / "global": 0o700}
    opened |= {cluster.pgdata / name: 0o600 for name in ("global/pg_control", "PG_VERSION")}
    for path, mode in opened.items():
        path.chmod(mode | (0o055 if path.is_dir() else 0o044))
    try:
        assert as_nobody(judge).endswith("' cannot be read: Permission denied")
    finally:
        for path, mode in opened.items():
            path.chmod(mode)


def test_a_tablespace_that_is_not_mounted_here_is_told(cluster: PostgresCluster) -> None:
    """The server has its files, and this program sees an empty folder at the same path, as in another container."""
    location = cluster.make_tablespace("far")
    cluster.psql("CREATE TABLE of_far TABLESPACE far AS SELECT 1 AS i")
    [oid, database] = cluster.psql(
        "SELECT oid FROM pg_tablespace WHERE spcname = 'far'; "
        "SELECT oid FROM pg_database WHERE datname = current_database()"
    ).split()
    try:
        assert judged(cluster, cluster.pgdata).is_possible
        (folder,) = (cluster.pgdata / "pg_tblspc" / oid).iterdir()
        assert _obstacle_without(location, cluster) == (
            f"tablespace {oid} is not whole here: '{folder}' lacks the folders {database}, which the server has"
        )
    finally:
        cluster.psql("DROP TABLE of_far; DROP TABLESPACE far")


def _obstacle_without(folder: Path, cluster: PostgresCluster) -> str:
    """Return what a process says that has an empty folder mounted there, for itself alone."""
    judge = (
        "import sys; from pathlib import Path; from wal_pipeline.postgres.own_data_directory import *; "
        "print(judge_local_reading(PostgresServer(sys.argv[1]), Path(sys.argv[2])).obstacle)"
    )
    mount = f"mount -t tmpfs tmpfs '{folder}' && exec \"$@\""
    inner = [sys.executable, "-c", judge, cluster.conninfo, str(cluster.pgdata)]
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", mount, "sh", *inner]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"a mount of one's own needs root: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_right_to_begin_a_base_backup_is_asked_for(cluster: PostgresCluster) -> None:
    """The statement that gives it works as it is printed."""
    other = PostgresServer(cluster.conninfo.replace("user=postgres", "user='some one'"))
    assert backup_right(PostgresServer(cluster.conninfo)).is_granted
    right = backup_right(other)
    assert (right, right.grant) == (BackupRight("some one", "postgres", False), GRANT)
    found = judged(cluster, cluster.pgdata, "some one")
    assert found.obstacle == (
        "the role 'some one' may not call pg_backup_start and pg_backup_stop in the database 'postgres'"
    )
    assert found.hint == f"As a superuser, in the database 'postgres': {GRANT}"
    cluster.psql(right.grant)
    assert judged(cluster, cluster.pgdata, "some one").is_possible
