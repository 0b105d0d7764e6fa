"""Tests base backups from a standby: complete, restorable, and without load on the primary."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.format.base_backup.manifest import WalRange
from wal_pipeline.archive.records import BackupMethod
from wal_pipeline.commands.backup.standby.last_segment import finish_last_segment
from wal_pipeline.commands.setup.backup_source import judge_backup_source
from wal_pipeline.commands.setup.findings import Level
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.own_data_directory import judge_local_reading
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.wal.names import segment_at
from wal_pipeline.wiring.backup import base_backup_taker
from wal_pipeline_tests.support.open_wal_scene import make_standby, wait_replayed, write_wal
from wal_pipeline_tests.support.restore_history import History, restored

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Followed:
    """A primary that archives, and a standby that follows it; base backups are taken from the standby."""

    history: History
    standby: PostgresCluster

    def caught_up(self) -> None:
        """Wait until the standby has replayed all that the primary wrote."""
        wait_replayed(self.standby, write_wal(self.history.cluster))


@pytest.fixture(scope="module")
def followed(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Followed]:
    """Both write every replication command and every connection into their logs."""
    told = {"log_replication_commands": "on", "log_connections": "on"}
    with History.begin(postgres_version, s3_pair, settings=told) as history:
        standby = make_standby(postgres_version, history.cluster, settings=told).start()
        history.environment["WAL_PIPELINE_BACKUP_CONNINFO"] = standby.conninfo
        try:
            yield Followed(history, standby)
        finally:
            standby.remove()


def test_a_base_backup_from_a_standby_is_restorable_at_once(followed: Followed) -> None:
    """The primary finishes the one segment that is waited for; it sends no base backup, and all commits come back."""
    history = followed.history
    history.mark("first")
    followed.caught_up()
    asked_at = datetime.fromisoformat(history.cluster.value("SELECT clock_timestamp()"))
    before = len(history.cluster.log.read_text())  # the standby itself was made by a base backup of the primary
    outcome = base_backup_taker(history.pipeline, archive=history.archive).take()
    assert outcome.complete, outcome
    manifest = outcome.result.manifest
    assert "BASE_BACKUP" in followed.standby.log.read_text()
    asked_of_primary = history.cluster.log.read_text()[before:]
    assert "BASE_BACKUP" not in asked_of_primary
    assert "checkpoint starting" not in asked_of_primary
    assert (manifest.finished_at - asked_at).total_seconds() < 60
    assert not finish_last_segment(PostgresServer(history.cluster.conninfo), manifest)  # it is finished
    history.mark("second")
    end = history.end()
    with restored(history, "--base-backup", manifest.backup_id, "--no-archiving") as found:
        assert found.moment() == (end.marks, end.transactions)
        assert found.balances_agree()


def test_a_standbys_own_files_are_read_where_they_are_proven(followed: Followed) -> None:
    """By the method local, also one that refers to unchanged files; the primary's directory is not taken for it."""
    history, standby = followed.history, followed.standby
    server = BackupServer(standby.conninfo)
    assert judge_local_reading(server, standby.pgdata).is_possible
    other = judge_local_reading(server, history.cluster.pgdata, seen_within_seconds=0.5)
    assert "not the server's own data directory" in (other.obstacle or "")
    history.archiver_settings = {"PGDATA": str(standby.pgdata), "WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB": "1"}
    try:
        history.mark("before")
        followed.caught_up()
        full = base_backup_taker(history.pipeline, archive=history.archive).take()
        history.mark("between")
        followed.caught_up()
        later = base_backup_taker(history.pipeline, archive=history.archive).take(incremental=True)
    finally:
        history.archiver_settings = {}
    assert (full.complete, later.complete) == (True, True), (full, later)
    assert [one.result.manifest.method for one in (full, later)] == [BackupMethod.LOCAL] * 2
    history.mark("after")
    end = history.end()
    for outcome in (full, later):
        backup_id = outcome.result.manifest.backup_id
        with restored(history, "--base-backup", backup_id, "--no-archiving", "--verify-with=postgres") as found:
            assert found.moment() == (end.marks, end.transactions)
            assert found.balances_agree()


def test_a_standby_that_stands_still_promises_no_later_moment(followed: Followed) -> None:
    """The base backup of a standby whose replay was paused is as old as the last commit that it replayed."""
    history, standby = followed.history, followed.standby
    followed.caught_up()
    standby.psql("SELECT pg_wal_replay_pause()")
    standby.process.wait_until(lambda: standby.value("SELECT pg_get_wal_replay_pause_state()") == "paused")
    last = datetime.fromisoformat(standby.value("SELECT pg_last_xact_replay_timestamp()"))
    history.mark("behind")
    write_wal(history.cluster)
    try:
        assert BackupServer(standby.conninfo).as_of() == last
    finally:
        standby.psql("SELECT pg_wal_replay_resume()")
    followed.caught_up()
    assert BackupServer(standby.conninfo).as_of() > last
    assert BackupServer(history.cluster.conninfo).as_of() > last


def test_the_primary_is_asked_only_for_what_is_open(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """A standby, a server that does not let us, and one that does not answer: the base backup waits, and it is said."""
    history = followed.history
    manifest = base_backup_taker(history.pipeline, archive=history.archive).take().result.manifest
    last = manifest.required_segments[-1]
    here = write_wal(history.cluster)
    name = segment_at(1, here, manifest.wal_segment_size)
    still_open = replace(manifest, wal_ranges=(WalRange(1, manifest.start_lsn, here),))
    assert still_open.required_segments[-1] == name != last
    assert not finish_last_segment(PostgresServer(followed.standby.conninfo), still_open)
    history.cluster.psql("CREATE ROLE looker LOGIN")
    looker = history.cluster.conninfo.replace("user=postgres", "user=looker")
    assert not finish_last_segment(PostgresServer(looker), still_open)
    assert f"'{name.name}' is open on the primary until its archive_timeout is over: role 'looker'" in caplog.text
    assert not finish_last_segment(PostgresServer("host=127.0.0.1 port=1"), still_open)
    assert "the primary is not asked to finish the last segment of the base backup" in caplog.text
    assert not finish_last_segment(PostgresServer(history.cluster.conninfo), replace(still_open, system_identifier=7))
    assert finish_last_segment(PostgresServer(history.cluster.conninfo), still_open)
    assert not finish_last_segment(PostgresServer(history.cluster.conninfo), still_open)


def test_the_source_is_judged(followed: Followed, postgres_version: PostgresInstall) -> None:
    """A standby of the cluster is right; a server of another cluster, and one that does not answer, are problems."""
    archived = BackupServer(followed.history.cluster.conninfo).facts()
    standby = BackupServer(followed.standby.conninfo)
    (finding,) = judge_backup_source(standby, archived)
    assert (finding.status, finding.message) == (
        Level.OK,
        f"are taken from the server at {standby.address}, a standby",
    )
    followed.history.cluster.psql("CREATE ROLE reader LOGIN SUPERUSER NOREPLICATION")
    followed.caught_up()
    reader = BackupServer(followed.standby.conninfo.replace("user=postgres", "user=reader"))
    primary, own = followed.history.cluster.pgdata, followed.standby.pgdata
    (finding,) = judge_backup_source(reader, archived, own)
    assert (finding.status, finding.message) == (
        Level.OK,
        f"are read from '{own}', of the server at {reader.address}, a standby",
    )
    (finding,) = judge_backup_source(standby, archived, primary)
    assert (finding.status, finding.message.startswith("are taken from the server")) == (Level.OK, True)
    with PostgresCluster(postgres_version).initdb() as other:
        (finding,) = judge_backup_source(BackupServer(other.conninfo), archived)
    assert (finding.status, finding.name) == (Level.PROBLEM, "base backups")
    assert f"expected {archived.system_identifier}" in finding.message
    (finding,) = judge_backup_source(BackupServer(other.conninfo), archived)
    assert finding.status is Level.PROBLEM
    assert finding.message.startswith("WAL_PIPELINE_BACKUP_CONNINFO: cannot connect to PostgreSQL")
    shutil.rmtree(other.folder)
