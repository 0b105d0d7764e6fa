"""The open segment is received on another host, through kills and losses, on PostgreSQL 18 and 15."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.slots import SlotError, SlotTrouble
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES
from wal_pipeline.wal.pages import SHORT_HEADER_BYTES
from wal_pipeline_tests.support.open_wal_scene import (
    Follower,
    make_standby,
    named,
    open_segment_of,
    wait_replayed,
    write_wal,
)
from wal_pipeline_tests.support.received_scene import SLOT, ReceivedScene

pytestmark = pytest.mark.integration
MIB = 1 << 20
BLOCK = 8192
MakeCluster = Callable[..., PostgresCluster]
ACTIVE_PID = "SELECT active_pid FROM pg_replication_slots"


@pytest.fixture
def primary(postgres_version: PostgresInstall, make_cluster: MakeCluster) -> PostgresCluster:
    """A running primary with segments of 1 MB that it keeps."""
    return make_cluster(postgres_version, wal_segment_size_mb=1, settings={"wal_keep_size": "256MB"}).start()


@pytest.fixture
def scene(primary: PostgresCluster) -> Iterator[ReceivedScene]:
    """Another host, and the slot on the primary."""
    made = ReceivedScene(primary)
    made.make_slot()
    yield made
    made.remove()


def persistent(step: Callable[[], object]) -> Callable[[], None]:
    """Return a step that is tried again by its caller after an error."""

    def tried() -> None:
        try:
            step()
        except PostgresError:
            return

    return tried


def without_page_headers(wal: bytes) -> bytes:
    """Return a segment's bytes without the headers, which may stand in the middle of a word."""
    pages = [wal[at : at + BLOCK] for at in range(0, len(wal), BLOCK)]
    return b"".join(page[LONG_HEADER_BYTES if at == 0 else SHORT_HEADER_BYTES :] for at, page in enumerate(pages))


def has_reached(follower: Follower, lsn: Lsn) -> bool:
    """Take a step, and say whether the source is at an LSN; False after an error."""
    try:
        return follower.step().lsn >= lsn
    except PostgresError:
        return False


def assert_same_as_servers(follower: Follower, cluster: PostgresCluster) -> None:
    """All that was taken is how the server's own files begin."""
    assert follower.taken
    for name, data in follower.taken.items():
        assert (cluster.pgdata / "pg_wal" / name).read_bytes().startswith(data)


def test_what_is_committed_is_received_and_finished_segments_go_into_the_spool(
    primary: PostgresCluster, scene: ReceivedScene
) -> None:
    """The spool gets them whole, and the open one is read from the partial file."""
    with scene.source() as source:
        follower = Follower(source)
        first = follower.step()
        for _ in range(6):
            seen = follower.until(write_wal(primary, 600))
        assert_same_as_servers(follower, primary)
        assert follower.gone == set()
        name, end = open_segment_of(seen)
        assert len(follower.taken[name.name]) == end
        assert seen.at > first.at
        spooled = sorted(path.name for path in scene.spool.iterdir())
        assert len(spooled) >= 3
        for path in scene.spool.iterdir():
            assert path.read_bytes() == (primary.pgdata / "pg_wal" / path.name).read_bytes()
        assert scene.received() == [f"{name.name}.partial"]


def test_a_segment_that_archive_command_brought_too_is_nothing_new(
    primary: PostgresCluster, scene: ReceivedScene
) -> None:
    """Same name and same content: one file. Other content: the spool's stays, and so does ours."""
    with scene.source() as source:
        follower = Follower(source)
        follower.step()
        name = open_segment_of(follower.until(write_wal(primary, 10)))[0]
        other = name.next(MIB)
        (scene.spool / other.name).write_bytes(b"other content")
        primary.switch_wal()
        follower.until(write_wal(primary, 10))
        (scene.spool / name.name).unlink()  # every store has it
        (scene.spool / name.name).write_bytes((primary.pgdata / "pg_wal" / name.name).read_bytes())
        primary.switch_wal()
        follower.until(write_wal(primary, 10))
        primary.process.wait_until(lambda: persistent(follower.step)() or other.name in scene.received(),
                                   timeout_seconds=30)  # fmt: skip
        assert (scene.spool / other.name).read_bytes() == b"other content"
        assert name.name not in scene.received()


@pytest.mark.each_version
def test_a_kill_of_the_receiver_leaves_no_hole(primary: PostgresCluster, scene: ReceivedScene) -> None:
    """It is started again, receives its open segment from the start, and the bytes are the same."""
    with scene.source() as source:
        follower = Follower(source)
        follower.until(write_wal(primary, 100))
        pid = int(primary.value(ACTIVE_PID))
        assert pid > 0
        mark = (scene.folder / ".receiver.process").read_text()
        os.kill(int(mark.rsplit(" ", 2)[1]), signal.SIGKILL)
        written = write_wal(primary, 100)
        primary.process.wait_until(lambda: has_reached(follower, written), timeout_seconds=60)
        follower.until(written)
        assert_same_as_servers(follower, primary)


_KILLED = """
import os, signal, sys
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from pathlib import Path
from wal_pipeline_tests.support.received_scene import ReceivedScene

class Known:
    install = PostgresInstall(int(sys.argv[2]), Path(sys.argv[3]))
    conninfo = sys.argv[1]

scene = ReceivedScene(Known())
scene.folder, scene.spool = Path(sys.argv[4]), Path(sys.argv[5])
print(scene.source().look().lsn, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.each_version
def test_a_kill_of_ours_leaves_no_second_receiver_and_no_hole(primary: PostgresCluster, scene: ReceivedScene) -> None:
    """The child that outlived us is ended by the next one, which goes on in its folder."""
    arguments = [primary.conninfo, str(primary.install.version), str(primary.install.bin_folder)]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, *arguments, str(scene.folder), str(scene.spool)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    active = ACTIVE_PID
    before = primary.value(active)
    assert before  # the child lives on
    written = write_wal(primary, 1500)
    with scene.source() as source:
        primary.process.wait_until(
            lambda: persistent(source.look)() or primary.value(active) not in ("", before), timeout_seconds=60
        )
        follower = Follower(source)
        follower.until(write_wal(primary, 10))
        assert written
        assert_same_as_servers(follower, primary)
        for path in scene.spool.iterdir():
            assert path.read_bytes() == (primary.pgdata / "pg_wal" / path.name).read_bytes()


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_of_the_server_leaves_no_hole(primary: PostgresCluster, scene: ReceivedScene, crash: bool) -> None:
    """While it is down a look fails with its reason; then it goes on."""
    with scene.source() as source:
        follower = Follower(source)
        follower.until(write_wal(primary, 100))
        if crash:
            primary.kill()
        else:
            primary.stop()
        persistent(follower.step)()  # what was received last
        with pytest.raises(PostgresError, match="cannot connect"):
            follower.step()
        primary.start()
        written = write_wal(primary, 100)
        primary.process.wait_until(lambda: has_reached(follower, written), timeout_seconds=60)
        follower.until(written)
        assert_same_as_servers(follower, primary)


def test_a_promotion_of_the_server_is_followed(primary: PostgresCluster, postgres_version: PostgresInstall) -> None:
    """The new timeline's segment and history file come; the old timeline's segment begins the new one's."""
    standby = make_standby(postgres_version, primary).start()
    scene = ReceivedScene(standby)
    scene.make_slot()
    with scene.source() as source:
        follower = Follower(source)
        written = write_wal(primary, 100)
        wait_replayed(standby, written)
        before = follower.until(written)
        old, end = open_segment_of(before)
        standby.promote()
        written = write_wal(standby, 50)
        standby.process.wait_until(lambda: has_reached(follower, written), timeout_seconds=60)
        after = follower.until(written)
        new = named(f"00000002{old.name[8:]}")
        assert (before.timeline, after.timeline) == (1, 2)
        assert follower.taken[new.name][:end] == follower.taken[old.name][:end]
        assert (standby.pgdata / "pg_wal" / new.name).read_bytes().startswith(follower.taken[new.name])
        assert (scene.spool / "00000002.history").read_bytes() == (
            standby.pgdata / "pg_wal" / "00000002.history"
        ).read_bytes()
    standby.remove()
    scene.remove()


def test_a_slot_that_is_gone_is_a_clear_error(primary: PostgresCluster, scene: ReceivedScene) -> None:
    """Nothing is started, and the hint says what to type."""
    primary.psql(f"SELECT pg_drop_replication_slot('{SLOT}')")
    with scene.source() as source, pytest.raises(SlotError) as error:
        source.look()
    assert error.value.trouble is SlotTrouble.GONE
    assert not scene.folder.exists()


def test_a_role_that_may_not_see_the_position_is_a_clear_error(primary: PostgresCluster, scene: ReceivedScene) -> None:
    """Nothing is guessed: the position is what the server says, or an error."""
    primary.psql("CREATE ROLE receiver LOGIN REPLICATION; GRANT CONNECT ON DATABASE postgres TO receiver")
    weak = ReceivedScene(primary)
    weak.cluster = _As(primary, primary.conninfo.replace("user=postgres", "user=receiver"))  # type: ignore[assignment]
    with weak.source() as source, pytest.raises(PostgresError, match="may not see how far pg_receivewal is") as error:
        source.look()
    assert "GRANT pg_read_all_stats" in str(error.value.hint)
    weak.remove()


def test_the_documented_rights_of_a_role_suffice(primary: PostgresCluster) -> None:
    """As docs/operations.md says: REPLICATION, pg_read_all_stats and pg_read_all_settings."""
    primary.psql("CREATE ROLE receiver LOGIN REPLICATION; GRANT pg_read_all_stats, pg_read_all_settings TO receiver")
    weak = ReceivedScene(primary)
    weak.cluster = _As(primary, primary.conninfo.replace("user=postgres", "user=receiver"))  # type: ignore[assignment]
    weak.make_slot()
    with weak.source() as source:
        follower = Follower(source)
        follower.step()
        follower.until(write_wal(primary, 1500))
        assert_same_as_servers(follower, primary)
    weak.remove()


def test_a_spool_that_cannot_be_written_does_not_stop_shipping(primary: PostgresCluster, scene: ReceivedScene) -> None:
    """The finished segments wait in the folder, are read there, and move when they can."""
    scene.spool.rmdir()
    with scene.source() as source:
        follower = Follower(source)
        follower.step()
        for _ in range(4):
            follower.until(write_wal(primary, 600))
        assert_same_as_servers(follower, primary)
        waiting = [name for name in scene.received() if not name.endswith(".partial")]
        assert len(waiting) >= 2
        scene.spool.mkdir()
        follower.until(write_wal(primary, 10))
        assert set(waiting) <= {path.name for path in scene.spool.iterdir()}


class _As:
    """The cluster, seen by another role."""

    def __init__(self, cluster: PostgresCluster, conninfo: str) -> None:
        self.install = cluster.install
        self.conninfo = conninfo


def test_nothing_acknowledged_is_lost_with_a_synchronous_receiver(
    primary: PostgresCluster, scene: ReceivedScene
) -> None:
    """With synchronous_standby_names the server acknowledges no commit that is not on the receiver's disk.

    The server's whole host is lost while it writes: each acknowledged commit lies in what the source hands out.
    """
    primary.psql("CREATE TABLE t (id int)")
    primary.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{SLOT}'")
    primary.psql("SELECT pg_reload_conf()")
    with scene.source() as source:
        follower = Follower(source)
        follower.step()
        state = "SELECT sync_state FROM pg_stat_replication"
        primary.process.wait_until(lambda: primary.value(state) == "sync", timeout_seconds=60)
        follower.step()
        acknowledged = 0
        with primary.connect() as writer:
            for acknowledged in range(1, 301):
                writer.execute(
                    "SELECT pg_logical_emit_message(true, 'sync', %s)", (f"acknowledged-{acknowledged:06d};",)
                )
        primary.kill()  # no look since the first: all of it was received, nothing of it was looked at
        primary.remove()
        follower.step()
        with pytest.raises(PostgresError, match="cannot connect"):
            follower.step()
    taken = b"".join(without_page_headers(follower.taken[name]) for name in sorted(follower.taken))
    missing = [n for n in range(1, acknowledged + 1) if f"acknowledged-{n:06d};".encode() not in taken]
    assert (acknowledged, missing) == (300, [])


def test_a_process_that_begins_after_the_loss_hands_out_the_rest(
    primary: PostgresCluster, scene: ReceivedScene
) -> None:
    """The server and our process went at once: the folder has the WAL, and the last look is kept beside it."""
    with scene.source() as source:
        before = source.look()
        primary.psql("SELECT pg_logical_emit_message(true, 'test', 'the last word') \\gset")
        flushed = primary.value("SELECT pg_current_wal_flush_lsn()")
        reported = "SELECT flush_lsn FROM pg_stat_replication"
        primary.process.wait_until(lambda: primary.value(reported) == flushed, timeout_seconds=60)
        primary.kill()
    with scene.source() as source:
        seen = source.look()
        assert (seen.at, str(seen.lsn)) == (before.at, flushed)
        name, end = open_segment_of(seen)
        assert b"the last word" in source.read(name, 0, end, seen)


def test_the_server_waits_for_a_synchronous_receiver_that_is_not_there(
    primary: PostgresCluster, scene: ReceivedScene
) -> None:
    """A commit waits until the receiver is back: that is the price."""
    primary.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{SLOT}'")
    primary.psql("SELECT pg_reload_conf()")
    primary.process.wait_until(lambda: primary.value("SHOW synchronous_standby_names") == SLOT, timeout_seconds=60)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with subprocess.Popen(
        [str(primary.install.program("psql")), "-d", primary.conninfo, "-c", "CREATE TABLE waited ()"]
    ) as writer:
        primary.process.wait_until(lambda: primary.value(waits) == "1", timeout_seconds=60)
        with scene.source() as source:
            persistent(source.look)()
            assert writer.wait(60) == 0
