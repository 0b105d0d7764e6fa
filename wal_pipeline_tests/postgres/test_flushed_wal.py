"""The watch says what a server has flushed, through a restart and a promotion, on PostgreSQL 18 and 15."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.flushed_wal import FlushWatch
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.open_wal_scene import make_standby, wait_replayed, write_wal

pytestmark = pytest.mark.integration
MakeCluster = Callable[..., PostgresCluster]


@pytest.fixture
def primary(postgres_version: PostgresInstall, make_cluster: MakeCluster) -> PostgresCluster:
    """A running primary with segments of 1 MB."""
    return make_cluster(postgres_version, wal_segment_size_mb=1).start()


@pytest.fixture
def standby(postgres_version: PostgresInstall, primary: PostgresCluster) -> Iterator[PostgresCluster]:
    """A running standby of the primary."""
    running = make_standby(postgres_version, primary).start()
    yield running
    running.remove()


def test_a_primarys_flushed_wal_holds_what_was_committed_before(primary: PostgresCluster) -> None:
    """The LSN is at or behind that of a commit which was acknowledged before, the moment is the server's."""
    watch = FlushWatch(PostgresServer(primary.conninfo))
    committed = write_wal(primary)
    acknowledged_at = datetime.now(UTC)
    seen = watch.look()
    assert seen.lsn >= committed
    assert acknowledged_at <= seen.at <= datetime.now(UTC)
    assert (seen.timeline, seen.is_standby, seen.wal_segment_size) == (1, False, 1 << 20)
    assert (str(seen.system_identifier), seen.server_major) == (primary.system_identifier, primary.install.version)
    assert watch.server.data_directory == primary.pgdata
    watch.close()


def test_one_connection_is_kept(primary: PostgresCluster) -> None:
    """Many looks are one connection, whatever a role's settings are."""
    primary.psql("ALTER ROLE postgres SET datestyle = 'German, DMY'; ALTER ROLE postgres SET client_encoding = LATIN1")
    watch = FlushWatch(PostgresServer(primary.conninfo))
    assert [watch.look().lsn for _ in range(5)]
    assert watch.connections == 1
    watch.close()


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_of_the_server_is_one_new_connection(primary: PostgresCluster, crash: bool) -> None:
    """While the server is down a look fails with its reason; after that the next one connects again."""
    watch = FlushWatch(PostgresServer(primary.conninfo))
    before = watch.look()
    if crash:
        primary.kill()
    else:
        primary.stop()
    with pytest.raises(PostgresError, match="cannot connect to PostgreSQL"):
        watch.look()
    primary.start()
    assert watch.look().lsn >= before.lsn
    primary.restart()
    assert watch.look().lsn >= before.lsn  # no look between stop and start
    assert watch.connections == 3
    watch.close()


def test_wal_level_minimal_is_refused(postgres_version: PostgresInstall, make_cluster: MakeCluster) -> None:
    """WAL of that level restores nothing, so nothing of it is shipped."""
    settings = {"wal_level": "minimal", "max_wal_senders": "0"}
    running = make_cluster(postgres_version, wal_segment_size_mb=1, settings=settings).start()
    watch = FlushWatch(PostgresServer(running.conninfo))
    with pytest.raises(PostgresError, match="wal_level is 'minimal', expected 'replica' or 'logical'") as raised:
        watch.look()
    assert "'wal-pipeline setup' says how to change it" in str(raised.value.hint)


def test_a_standbys_flushed_wal_is_what_it_received(primary: PostgresCluster, standby: PostgresCluster) -> None:
    """A standby that streams says what it received; after a promotion its own new timeline."""
    watch = FlushWatch(PostgresServer(standby.conninfo))
    written = write_wal(primary)
    wait_replayed(standby, written)
    seen = watch.look()
    assert (seen.timeline, seen.is_standby) == (1, True)
    assert seen.lsn >= written
    standby.promote()
    promoted = watch.look()
    assert (promoted.timeline, promoted.is_standby) == (2, False)
    assert promoted.lsn >= seen.lsn
    assert watch.connections == 1
    watch.close()


def test_a_standby_without_its_primary_claims_no_later_moment(
    primary: PostgresCluster, standby: PostgresCluster
) -> None:
    """When the primary is gone, the moment stays the one for which the last bytes are complete."""
    watch = FlushWatch(PostgresServer(standby.conninfo))
    wait_replayed(standby, write_wal(primary))
    seen = watch.look()
    primary.stop(mode="immediate")
    standby.process.wait_until(
        lambda: standby.value("SELECT count(*) FROM pg_stat_wal_receiver") == "0", timeout_seconds=60
    )
    assert watch.look() == seen
    watch.close()


def test_a_standby_that_never_received_says_what_it_replayed(
    primary: PostgresCluster, standby: PostgresCluster
) -> None:
    """A watch that comes when no receiver runs has the control file's word, which is behind and true."""
    written = write_wal(primary)
    wait_replayed(standby, written)
    primary.stop()
    standby.restart()
    watch = FlushWatch(PostgresServer(standby.conninfo))
    seen = watch.look()
    assert (seen.timeline, seen.is_standby) == (1, True)
    assert Lsn(0) < seen.lsn <= Lsn.parse(standby.value("SELECT pg_last_wal_replay_lsn()"))
    watch.close()
