"""The log of a restored server is written into no file that its user chose."""

import os
from pathlib import Path

import pytest

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import RecoveryServer, ServerUser


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
