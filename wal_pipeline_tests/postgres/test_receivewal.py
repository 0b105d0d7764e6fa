"""pg_receivewal runs as a child, says why it ended, and leaves no second one behind, on PostgreSQL 18 and 15."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import PostgresError
from wal_pipeline.host.process_identity import identity_of
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.postgres.receivewal import PROGRAM, ReceiveCommand, ReceiveWal, valid_end
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at
from wal_pipeline_tests.support.open_wal_scene import write_wal
from wal_pipeline_tests.support.received_scene import SLOT, ReceivedScene

pytestmark = pytest.mark.integration
MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster with segments of 1 MB."""
    running = PostgresCluster(postgres_version).initdb(wal_segment_size_mb=1).start()
    yield running
    running.remove()


@pytest.fixture
def scene(cluster: PostgresCluster) -> Iterator[ReceivedScene]:
    """Another host, and the slot on the server."""
    made = ReceivedScene(cluster)
    made.make_slot()
    yield made
    cluster.process.wait_until(
        lambda: cluster.value("SELECT count(*) FROM pg_replication_slots WHERE active") == "0", timeout_seconds=30
    )
    cluster.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    made.remove()


def wait_active(cluster: PostgresCluster) -> None:
    """Wait until the server streams to the slot."""
    cluster.process.wait_until(
        lambda: cluster.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1",
        timeout_seconds=30,
    )


def test_what_it_reports_is_on_disk(cluster: PostgresCluster, scene: ReceivedScene) -> None:
    """The flushed position of pg_stat_replication follows each commit, and its bytes are in the partial file."""
    receiver = scene.receiver()
    receiver.start()
    wait_active(cluster)
    written = write_wal(cluster, 50)
    reported = "SELECT flush_lsn FROM pg_stat_replication"
    cluster.process.wait_until(lambda: Lsn.parse(cluster.value(reported)) >= written, timeout_seconds=30)
    name = segment_at(1, Lsn(written - 1), MIB)
    end = written - name.start_lsn(MIB)
    received = (scene.folder / f"{name.name}.partial").read_bytes()
    assert received[:end] == (cluster.pgdata / "pg_wal" / name.name).read_bytes()[:end]
    receiver.stop()
    assert not receiver.is_running


def test_the_reason_why_it_ended_is_told(cluster: PostgresCluster, scene: ReceivedScene) -> None:
    """A slot that is gone, a server that stopped."""
    cluster.psql(f"SELECT pg_drop_replication_slot('{SLOT}')")
    receiver = scene.receiver()
    receiver.start()
    cluster.process.wait_until(lambda: not receiver.is_running, timeout_seconds=30)
    ended = receiver.failure()
    assert f'replication slot "{SLOT}" does not exist' in ended.message
    assert ended.hint == "Type 'wal-pipeline slot make'."
    receiver.stop()


def test_one_that_a_killed_process_left_behind_is_ended(cluster: PostgresCluster, scene: ReceivedScene) -> None:
    """Two would write into one folder, and the slot would be taken."""
    left = scene.receiver()
    left.start()
    wait_active(cluster)
    first = left.pid
    assert first is not None
    again = scene.receiver()
    again.start()
    wait_active(cluster)
    assert not left.is_running
    assert again.is_running
    assert again.pid != first
    again.stop()


def test_a_process_of_that_number_that_is_another_is_left_alone(cluster: PostgresCluster, scene: ReceivedScene) -> None:
    """The number was given again since: its start differs."""
    scene.folder.mkdir()
    other = identity_of(os.getppid()).rsplit(" ", 1)[0] + " 1"
    (scene.folder / ".receiver.process").write_text(other)
    receiver = scene.receiver()
    receiver.start()  # would have ended this test's own parent
    wait_active(cluster)
    os.kill(os.getppid(), 0)
    receiver.stop()


def test_a_kill_of_the_program_is_seen(cluster: PostgresCluster, scene: ReceivedScene) -> None:
    """Out of memory, or a person: it does not run, and says nothing."""
    receiver = scene.receiver()
    receiver.start()
    wait_active(cluster)
    assert receiver.pid is not None
    os.kill(receiver.pid, signal.SIGKILL)
    cluster.process.wait_until(lambda: not receiver.is_running, timeout_seconds=30)
    assert receiver.failure().message == "pg_receivewal ended: it printed no error"
    receiver.stop()


def test_no_password_stands_on_its_command_line() -> None:
    """Everybody on the host can read that."""
    server = BackupServer("host=h password=not-to-be-seen")
    command = ReceiveCommand(Path("/bin/pg_receivewal"), server.program_conninfo(), Path("/f"), SLOT)
    assert not any("not-to-be-seen" in argument for argument in command.arguments())
    assert server.program_environment()["PGPASSWORD"] == "not-to-be-seen"


def test_a_program_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """The error names it."""
    receiver = ReceiveWal(ReceiveCommand(Path("/nowhere/pg_receivewal"), "", tmp_path / "f", SLOT), {})
    with pytest.raises(PostgresError, match="'/nowhere/pg_receivewal' cannot be started: No such file"):
        receiver.start()


def test_a_newer_program_receives_from_an_older_server(
    cluster: PostgresCluster, scene: ReceivedScene, postgres18: PostgresInstall
) -> None:
    """The program of the server's version or a newer one is found, never an older one."""
    assert find_binaries(cluster.install.version, programs=[PROGRAM]).major >= cluster.install.version
    newer = ReceivedScene(cluster, programs=postgres18)
    receiver = newer.receiver()
    receiver.start()
    wait_active(cluster)
    receiver.stop()
    newer.remove()


def test_the_end_of_valid_wal_is_that_of_the_last_record(cluster: PostgresCluster, tmp_path: Path) -> None:
    """Whatever lies behind it, zeros or half a record, recovery ends there too."""
    waldump = cluster.install.program("pg_waldump")
    cluster.switch_wal()
    committed = write_wal(cluster, 20)
    name = segment_at(1, Lsn(committed - 1), MIB)
    end = committed - name.start_lsn(MIB)
    data = (cluster.pgdata / "pg_wal" / name.name).read_bytes()[:end]
    path = tmp_path / f"{name.name}.partial"
    path.write_bytes(data + bytes(MIB - end))
    assert valid_end(waldump, path, name) == committed
    path.write_bytes(data[:-8] + bytes(MIB - end + 8))  # the last record's end is missing
    shorter = valid_end(waldump, path, name)
    assert shorter is not None
    assert name.start_lsn(MIB) < shorter < committed
