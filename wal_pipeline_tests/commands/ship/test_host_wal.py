"""The open segment is read on the database's host while the server goes on, on PostgreSQL 18 and 15."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.commands.ship.host_wal import HostWal
from wal_pipeline.errors import PostgresError, SegmentGoneError
from wal_pipeline.postgres.flushed_wal import FlushWatch
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.wal.names import segment_name
from wal_pipeline_tests.support.nobody import as_nobody
from wal_pipeline_tests.support.open_wal_scene import (
    Follower,
    keep_segments,
    make_standby,
    named,
    open_segment_of,
    wait_replayed,
    write_wal,
)

pytestmark = pytest.mark.integration
MIB = 1 << 20
MakeCluster = Callable[..., PostgresCluster]
SMALL = {"min_wal_size": "2MB", "max_wal_size": "4MB", "wal_keep_size": "0"}


def source_of(cluster: PostgresCluster, pgdata: Path | None = None) -> HostWal:
    """Return the source of a server on this host; ``pgdata`` as the settings may say it."""
    return HostWal(FlushWatch(PostgresServer(cluster.conninfo)), pgdata)


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


def test_all_that_was_flushed_is_read(primary: PostgresCluster) -> None:
    """What a commit wrote is in the bytes, and they are those of the file."""
    with source_of(primary) as source:
        primary.psql("SELECT pg_logical_emit_message(true, 'test', 'a word that is found again') \\gset")
        seen = source.look()
        name, end = open_segment_of(seen)
        taken = source.read(name, 0, end, seen)
    assert b"a word that is found again" in taken
    assert (primary.pgdata / "pg_wal" / name.name).read_bytes().startswith(taken)


def test_segments_are_followed_while_the_server_recycles_them(
    postgres_version: PostgresInstall, make_cluster: MakeCluster
) -> None:
    """Whatever was read of a segment is how its archived file begins, over switches, checkpoints and recycling."""
    kept, archiving = keep_segments()
    primary = make_cluster(postgres_version, wal_segment_size_mb=1, settings={**SMALL, **archiving}).start()
    inodes: dict[int, str] = {}
    reused = 0
    with source_of(primary) as source:
        follower = Follower(source)
        for turn in range(24):
            follower.until(write_wal(primary, 200 + 97 * (turn % 7)))
            if turn % 4 == 3:
                primary.psql("CHECKPOINT")
            for path in (primary.pgdata / "pg_wal").glob("0000000100*"):
                known = inodes.setdefault(path.stat().st_ino, path.name)
                reused += known != path.name
        last = primary.switch_wal()
        follower.step()
    primary.process.wait_until((kept / last).exists, timeout_seconds=60)
    whole = {name: data for name, data in follower.taken.items() if len(data) == MIB}
    assert len(whole) >= 6
    assert all(data == (kept / name).read_bytes() for name, data in whole.items())
    assert reused > 0  # else nothing was recycled, and the test shows nothing
    shutil.rmtree(kept)


def test_a_switch_in_mid_read_gives_the_segment_to_its_end(primary: PostgresCluster) -> None:
    """What was looked at before a switch is read after it; the zeros behind the switch come at the next look."""
    with source_of(primary) as source:
        write_wal(primary)
        before = source.look()
        name, end = open_segment_of(before)
        switched = primary.switch_wal()
        head = source.read(name, 0, end, before)
        after = source.look()
        assert (switched, after.lsn >= name.end_lsn(MIB)) == (name.name, True)
        whole = head + source.read(name, end, MIB, after)
    assert whole == (primary.pgdata / "pg_wal" / name.name).read_bytes()


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_of_the_server_leaves_no_hole(primary: PostgresCluster, crash: bool) -> None:
    """The same segment goes on, and its bytes before the restart are the same after it."""
    with source_of(primary) as source:
        follower = Follower(source)
        follower.until(write_wal(primary, 100))
        if crash:
            primary.kill()
        else:
            primary.stop()
        with pytest.raises(PostgresError, match="cannot connect"):
            follower.step()
        primary.start()
        seen = follower.until(write_wal(primary, 100))
    for name, data in follower.taken.items():
        assert (primary.pgdata / "pg_wal" / name).read_bytes().startswith(data)
    assert len(follower.taken[open_segment_of(seen)[0].name]) == open_segment_of(seen)[1]


def test_a_standby_is_followed_through_its_promotion_in_mid_segment(
    primary: PostgresCluster, standby: PostgresCluster
) -> None:
    """The new timeline's segment begins with the old one's bytes; the old one's has nothing beyond the fork."""
    with source_of(standby) as source:
        follower = Follower(source)
        follower.step()
        written = write_wal(primary, 100)
        wait_replayed(standby, written)
        before = follower.until(written)
        old, end = open_segment_of(before)
        assert 0 < end < MIB
        standby.promote()
        after = follower.until(write_wal(standby, 50))
        assert (before.is_standby, before.timeline) == (True, 1)
        assert (after.is_standby, after.timeline) == (False, 2)
        new = segment_name(2, old.number(MIB), MIB)
        assert follower.taken[new.name].startswith(follower.taken[old.name])
        with pytest.raises(SegmentGoneError):
            source.read(old, 0, MIB, after)


def test_a_finished_segment_of_the_old_timeline_is_read_after_the_promotion(
    primary: PostgresCluster, postgres_version: PostgresInstall
) -> None:
    """The segments before the fork belong to the new timeline's path, as long as the server keeps them."""
    standby = make_standby(postgres_version, primary, settings={"wal_keep_size": "64MB"}).start()
    finished = named(primary.switch_wal())
    wait_replayed(standby, write_wal(primary, 10))
    standby.promote()
    with source_of(standby) as source:
        seen = source.look()
        assert seen.timeline == 2
        assert source.read(finished, 0, MIB, seen) == (primary.pgdata / "pg_wal" / finished.name).read_bytes()
    standby.remove()


def test_pg_wal_may_be_a_link(postgres_version: PostgresInstall) -> None:
    """Many keep the WAL on a disk of its own; one that is mounted in a container only is named."""
    waldir = owned_folder("waldir")
    cluster = PostgresCluster(postgres_version).initdb(wal_segment_size_mb=1, waldir=waldir / "wal").start()
    try:
        with source_of(cluster) as source:
            seen = source.look()
            name, end = open_segment_of(seen)
            assert (waldir / "wal" / name.name).read_bytes().startswith(source.read(name, 0, end, seen))
        view = owned_folder("view")
        for part in ("global", "PG_VERSION"):
            (view / part).symlink_to(cluster.pgdata / part)
        (view / "pg_wal").symlink_to("/nowhere/wal")
        with source_of(cluster, view) as source, pytest.raises(PostgresError) as raised:
            source.look()
        assert f"'{view}/pg_wal', a link to '/nowhere/wal', which is not on this host" in str(raised.value)
        shutil.rmtree(view)
    finally:
        cluster.remove()
        shutil.rmtree(waldir)


def test_the_settings_place_wins_over_the_servers(primary: PostgresCluster, tmp_path: Path) -> None:
    """A container's data directory has another path on its host: the setting says which."""
    here = tmp_path / "as-the-host-sees-it"
    here.symlink_to(primary.pgdata)
    with source_of(primary, here) as source:
        seen = source.look()
        name, end = open_segment_of(seen)
        assert len(source.read(name, 0, end, seen)) == end
        assert source.pgdata == here


def test_a_data_directory_that_is_not_on_this_host_is_named(primary: PostgresCluster) -> None:
    """The hint names the setting, and the source for another host."""
    with source_of(primary, Path("/nowhere/data")) as source, pytest.raises(PostgresError) as raised:
        source.look()
    assert raised.value.message == "the data directory '/nowhere/data' is not on this host"
    assert "Set PGDATA" in str(raised.value.hint)
    assert "WAL_PIPELINE_SHIP_FROM to pg_receivewal" in str(raised.value.hint)


def test_another_clusters_data_directory_is_refused(
    primary: PostgresCluster, postgres_version: PostgresInstall, make_cluster: MakeCluster
) -> None:
    """Nothing is read of a cluster that is not the server's."""
    other = make_cluster(postgres_version, wal_segment_size_mb=1)
    with source_of(primary, other.pgdata) as source, pytest.raises(PostgresError) as raised:
        source.look()
    assert raised.value.message == (
        f"'{other.pgdata}' is of the cluster with system identifier {other.system_identifier}, the server's "
        f"is {primary.system_identifier}"
    )


def test_a_standbys_data_directory_is_not_taken_for_its_primarys(
    primary: PostgresCluster, standby: PostgresCluster
) -> None:
    """Both have the same system identifier and the same WAL, but what is flushed here is not flushed there."""
    with source_of(primary, standby.pgdata) as source, pytest.raises(PostgresError) as raised:
        source.look()
    assert f"'{standby.pgdata}' is not the data directory of the server that was asked" in raised.value.message


def test_a_stopped_copy_is_not_taken_for_the_running_server(primary: PostgresCluster) -> None:
    """A copy of the data directory has the cluster's identifier and old WAL."""
    copy = owned_folder("copy") / "pgdata"
    shutil.copytree(primary.pgdata, copy, symlinks=True)
    primary.psql("SELECT pg_sleep(1.1)")  # the control file's clock has seconds
    primary.psql("CHECKPOINT")
    with source_of(primary, copy) as source, pytest.raises(PostgresError, match="is not the data directory of"):
        source.look()
    shutil.rmtree(copy.parent)


def test_a_data_directory_of_another_user_is_named(primary: PostgresCluster) -> None:
    """The error names both users, and the user to run as."""
    if os.geteuid() != 0:
        pytest.skip("another user needs root")
    owner = primary.pgdata.owner()
    if owner == "nobody":
        pytest.skip("PostgreSQL runs as nobody here")
    primary.folder.chmod(0o755)
    said = as_nobody(lambda: source_of(primary).look())
    assert f"cannot be read by user 'nobody': '{primary.pgdata}' belongs to user '{owner}', and is closed" in said
    assert f"Run 'wal-pipeline ship' as user '{owner}'" in said


def test_what_is_not_flushed_is_not_read(primary: PostgresCluster) -> None:
    """A caller that asks for more than it saw has a fault."""
    with source_of(primary) as source:
        seen = source.look()
        name, end = open_segment_of(seen)
        with pytest.raises(ValueError, match="is flushed"):
            source.read(name, 0, end + 1, seen)
