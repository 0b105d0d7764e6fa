"""A restored server is watched to the end, whatever its log says; no file that its user chose becomes its log."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, postgres_user
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import RecoveryLimits, RecoveryServer, ServerUser, waited_for
from wal_pipeline.postgres.replay_progress import RecoveryProgress, RecoveryState
from wal_pipeline.postgres.startup_watch import StartupSigns
from wal_pipeline.wal.lsn import Lsn


def start(folder: Path, uid: int | None = None) -> None:
    """Start a server whose program does not run, with a log in this folder."""
    (folder / "postgres").write_text("no program\n")
    (folder / "postgres").chmod(0o755)
    user = ServerUser(os.geteuid() if uid is None else uid, os.getegid())
    RecoveryServer(Binaries(folder, 18), folder, user=user, log=folder / "recovery.log").start()


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_written(tmp_path: Path, kind: str) -> None:
    """Whoever may write beside the data directory has no other file appended to by root."""
    precious, log = tmp_path / "precious", tmp_path / "recovery.log"
    precious.write_text("root's\n")
    if kind == "symbolic link":
        log.symlink_to(precious)
    elif kind == "hard link":
        log.hardlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(log)
    else:
        log.mkdir()
    with pytest.raises(PostgresError, match=r"is not a plain file of ours|Is a directory"):
        start(tmp_path)
    assert precious.read_text() == "root's\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_log_of_a_third_user_is_not_written(tmp_path: Path) -> None:
    """Ours and the server's user's are."""
    log = tmp_path / "recovery.log"
    log.touch()
    os.chown(log, 4711, 4711)
    with pytest.raises(PostgresError, match="is not a plain file of ours"):
        start(tmp_path)
    with pytest.raises(PostgresError, match="cannot be started"):
        start(tmp_path, uid=4711)


@contextmanager
def recovering(cluster: PostgresCluster, restore_command: str, **settings: str) -> Iterator[RecoveryServer]:
    """Start a recovery in the folder of a cluster that was stopped, and stop it in any case."""
    (cluster.pgdata / "recovery.signal").touch()
    user = postgres_user()
    server = RecoveryServer(
        Binaries(cluster.install.bin_folder, cluster.install.version),
        cluster.pgdata,
        user=ServerUser(user.uid, user.gid),
        log=cluster.folder / "recovery.log",
        settings={
            "restore_command": restore_command,
            "port": str(cluster.port),
            "unix_socket_directories": str(cluster.socket_folder),
            **settings,
        },
    )
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            subprocess.run(["kill", "-QUIT", str(server.pid)], check=False)
            server.stop()


@pytest.fixture
def stopped(postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster]) -> PostgresCluster:
    """A cluster that was stopped in order."""
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1)
    with cluster:
        cluster.psql("CREATE TABLE t (n int)")
        cluster.stop()
    return cluster


@pytest.mark.integration
def test_settings_of_a_person_do_not_make_the_log_unreadable(stopped: PostgresCluster) -> None:
    """The command line has the form on which the reading depends, whatever else is asked for."""
    odd = {"log_error_verbosity": "verbose", "log_line_prefix": "x ", "log_destination": "csvlog"}
    with recovering(stopped, "false", **odd, log_min_messages="fatal", logging_collector="on") as server:
        assert server.watch(RecoveryLimits(60)).state is RecoveryState.OPEN
        assert server.progress.timeline == 2


@pytest.mark.integration
def test_a_log_that_says_nothing_keeps_nobody_waiting(
    stopped: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own files tell that it is open."""
    monkeypatch.setattr("wal_pipeline.postgres.recovery_server.READABLE_LOG", {"log_min_messages": "panic"})
    with recovering(stopped, "false") as server:
        assert server.watch(RecoveryLimits(60)).state is RecoveryState.OPEN
        assert server.progress.timeline is None


@pytest.mark.integration
def test_a_recovery_that_stands_still_has_an_end_and_says_what_it_waits_for(stopped: PostgresCluster) -> None:
    """A restore_command that never answers: the file is named while it waits, and in the end."""
    said: list[str] = []

    def listen(progress: RecoveryProgress) -> None:
        said.extend([progress.waits_for] if progress.waits_for is not None else [])

    with recovering(stopped, "sleep 600 # %f") as server:
        with pytest.raises(PostgresError) as caught:
            server.watch(RecoveryLimits(quiet_seconds=5, told_seconds=2), listen)
        assert server.is_running
    assert said
    assert set(said) == {"its restore_command, which was asked for WAL file 00000002.history"}
    assert caught.value.message.startswith(
        f"the restored server in '{stopped.pgdata}' has not gone on for 5 s: it waits for its restore_command, which "
        f"was asked for WAL file 00000002.history; its log '{stopped.folder / 'recovery.log'}' ends with:\n"
    )
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"The server still runs, with process id {server.pid}: it goes on by itself")


@pytest.mark.integration
def test_a_recovery_has_a_limit_altogether(stopped: PostgresCluster) -> None:
    """The drill's: it also says what was waited for."""
    words = "did not end its recovery within 2 s: it waits for"
    with recovering(stopped, "sleep 600 # %f") as server, pytest.raises(PostgresError, match=words):
        server.watch(RecoveryLimits(total_seconds=2))


def test_what_is_waited_for_is_said_by_the_state() -> None:
    """A session's pause, a file, its replay, the last checkpoint, the begin."""
    replay, silent = StartupSigns("recovering 0001", None, ()), StartupSigns("", None, ())
    assert waited_for(RecoveryProgress(), silent) == "the begin of its recovery"
    assert waited_for(RecoveryProgress(), replay) == "the replay of WAL file 0001"
    assert waited_for(RecoveryProgress(held=True), replay).startswith("a session that paused it")
    ended = RecoveryProgress(replayed_lsn=Lsn.parse("0/1"))
    assert waited_for(ended, silent) == "the checkpoint at the end of the recovery"
    assert waited_for(RecoveryProgress(RecoveryState.REPLAYING), silent) == "the next WAL file"
