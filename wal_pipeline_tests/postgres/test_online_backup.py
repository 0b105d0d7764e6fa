"""A server is put into backup mode and out of it again, on a primary and on a standby, on PostgreSQL 18 and 15."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import BaseBackupError, PostgresError
from wal_pipeline.postgres.online_backup import OnlineBackup
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.open_wal_scene import make_standby, wait_replayed, write_wal

pytestmark = pytest.mark.integration
COUNT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wal-pipeline'"
PROCESS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'wal-pipeline'"
IS_SILENT = (
    "SELECT clock_timestamp() - state_change > '500ms' FROM pg_stat_activity WHERE application_name = 'wal-pipeline'"
)


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with a tablespace, whose roles and database have settings that would end a long session."""
    running = PostgresCluster(postgres_version).initdb(wal_segment_size_mb=1).start()
    running.make_tablespace("fast")
    running.psql("CREATE ROLE backup LOGIN; CREATE ROLE hasty SUPERUSER LOGIN")
    for setting in ("statement_timeout = '50ms'", "idle_session_timeout = '50ms'", "lock_timeout = '50ms'"):
        running.psql(f"ALTER ROLE hasty SET {setting}")
    yield running
    running.remove()


def server_of(cluster: PostgresCluster, role: str = "postgres") -> PostgresServer:
    return PostgresServer(cluster.conninfo.replace("user=postgres", f"user={role}"))


def test_a_base_backup_is_started_and_stopped(cluster: PostgresCluster) -> None:
    """Both ends are told as PostgreSQL tells them, with the files that a restore needs."""
    write_wal(cluster)
    before = Lsn.parse(cluster.value("SELECT pg_current_wal_insert_lsn()"))
    with OnlineBackup(server_of(cluster)).started("a label", fast=True) as running:
        started = running.started
        running.require_running()
        written = write_wal(cluster)
        stopped = running.stop()
    assert before <= started.start_lsn < written <= stopped.stop_lsn
    assert (started.timeline, stopped.timeline, started.in_recovery) == (1, 1, False)
    assert (started.major, str(started.system_identifier)) == (cluster.install.version, cluster.system_identifier)
    assert (started.block_size, started.blocks_per_segment, started.has_checksums) == (8192, 131072, True)
    assert timedelta(0) <= stopped.finished_at - started.started_at < timedelta(minutes=1)
    assert abs(datetime.now(UTC) - stopped.finished_at) < timedelta(minutes=1)
    label = stopped.label_file.decode().splitlines()
    assert label[0].startswith(f"START WAL LOCATION: {started.start_lsn} (file 00000001")
    assert label[-2:] == ["LABEL: a label", "START TIMELINE: 1"]
    oid, _, location = stopped.tablespace_map.decode().strip().partition(" ")
    assert cluster.value(f"SELECT pg_tablespace_location({oid})") == location


def test_a_label_of_any_characters_is_kept(cluster: PostgresCluster) -> None:
    """Its bytes are those that were given."""
    with OnlineBackup(server_of(cluster)).started("tägliche Sicherung 'eins'", fast=True) as running:
        assert "LABEL: tägliche Sicherung 'eins'\n" in running.stop().label_file.decode()


def test_the_servers_time_limits_do_not_end_it(cluster: PostgresCluster) -> None:
    """The connection is silent for hours, and the checkpoint may take minutes."""
    with OnlineBackup(server_of(cluster, "hasty")).started("long", fast=False) as running:
        cluster.process.wait_until(lambda: cluster.value(IS_SILENT) == "t", timeout_seconds=30)
        running.require_running()
        assert running.stop().stop_lsn > running.started.start_lsn


def test_an_error_in_the_block_ends_the_backup_mode(cluster: PostgresCluster) -> None:
    """The error is raised as it is, and the connection ends, with which the server leaves its backup mode."""
    with (
        pytest.raises(OSError, match="the disk is gone"),
        OnlineBackup(server_of(cluster)).started("broken", fast=True),
    ):
        assert cluster.value(COUNT) == "1"
        raise OSError("the disk is gone")
    cluster.process.wait_until(lambda: cluster.value(COUNT) == "0", timeout_seconds=30)


def test_a_lost_connection_is_told(cluster: PostgresCluster) -> None:
    """Somebody ended the session: what was read is worth nothing."""
    with OnlineBackup(server_of(cluster)).started("lost", fast=True) as running:
        pid = cluster.value(PROCESS)
        cluster.psql(f"SELECT pg_terminate_backend({pid}, 10000)")
        with pytest.raises(BaseBackupError) as error:
            running.require_running()
        assert error.value.message.startswith("the connection to PostgreSQL was lost (taking a base backup): ")
        assert "Take the base backup again. The server left its backup mode" in str(error.value.hint)
        with pytest.raises(BaseBackupError):
            running.stop()


def test_a_role_without_the_right_is_told_the_grant(cluster: PostgresCluster) -> None:
    """It works as soon as a superuser typed the hint."""
    with pytest.raises(BaseBackupError) as error, OnlineBackup(server_of(cluster, "backup")).started("x", fast=True):
        pass
    assert error.value.message == "PostgreSQL refused: permission denied for function pg_backup_start"
    grant = str(error.value.hint).partition(": ")[2]
    assert grant.startswith("GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO ")
    cluster.psql(grant.replace("the role.", "backup"))
    try:
        with OnlineBackup(server_of(cluster, "backup")).started("x", fast=True) as running:
            assert running.stop().label_file
    finally:
        cluster.psql("REVOKE ALL ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) FROM backup")


def test_a_second_stop_is_an_error(cluster: PostgresCluster) -> None:
    """The same comes of a connection pooler that changes the connection between two statements."""
    with OnlineBackup(server_of(cluster)).started("once", fast=True) as running:
        running.stop()
        with pytest.raises(BaseBackupError, match="backup is not in progress") as error:
            running.stop()
    assert "a connection pooler gives each transaction another connection" in str(error.value.hint)


def test_two_at_once_do_not_mind_each_other(cluster: PostgresCluster) -> None:
    """Such as a pg_basebackup beside ours."""
    backup = OnlineBackup(server_of(cluster))
    with backup.started("first", fast=True) as first, backup.started("second", fast=True) as second:
        assert second.started.start_lsn > first.started.start_lsn
        assert b"LABEL: first\n" in first.stop().label_file
        assert b"LABEL: second\n" in second.stop().label_file


def test_a_server_that_is_not_there_is_told(cluster: PostgresCluster) -> None:
    """As for each other question."""
    nowhere = PostgresServer(cluster.conninfo.replace(f"port={cluster.port}", "port=1"))
    with pytest.raises(PostgresError, match="cannot connect"), OnlineBackup(nowhere).started("x", fast=True):
        pass


@pytest.fixture
def standby(cluster: PostgresCluster) -> Iterator[PostgresCluster]:
    """A running standby of the cluster."""
    location = cluster.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'")
    cluster.psql("DROP TABLESPACE fast")
    made = make_standby(cluster.install, cluster).start()
    yield made
    made.remove()
    cluster.psql(f"CREATE TABLESPACE fast LOCATION '{location}'")


@pytest.mark.each_version
def test_a_standby_is_backed_up_until_it_is_promoted(cluster: PostgresCluster, standby: PostgresCluster) -> None:
    """Its label says so. A promotion in the middle makes the base backup worthless, and is told at once."""
    backup = OnlineBackup(server_of(standby))
    with backup.started("of a standby", fast=True) as running:
        wait_replayed(standby, write_wal(cluster))
        stopped = running.stop()
    assert running.started.in_recovery
    assert b"BACKUP FROM: standby\n" in stopped.label_file
    assert (stopped.timeline, stopped.stop_lsn >= running.started.start_lsn) == (1, True)

    with backup.started("of one that is promoted", fast=True) as running:
        standby.promote()
        with pytest.raises(BaseBackupError) as error:
            running.require_running()
        assert error.value.message == "the standby was promoted during the base backup"
        with pytest.raises(BaseBackupError, match="the standby was promoted during online backup") as error:
            running.stop()
        assert error.value.hint == "Take the base backup again."
