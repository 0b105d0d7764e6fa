"""Whether a file has a writer is what the kernel says, and asking harms neither the writer nor us."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wal_pipeline.host import open_writers as file_lease
from wal_pipeline.host.open_writers import Writer, find_writer

_OPENS = """
import os, sys
for _ in range(3000):
    os.close(os.open(sys.argv[1], os.O_WRONLY))
"""


def ask(path: Path) -> Writer:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return find_writer(descriptor, path.parent)
    finally:
        os.close(descriptor)


def test_a_writer_is_seen_until_it_closes(tmp_path: Path) -> None:
    """Who reads is no writer; who has it open for writing is one, though nothing is written."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb"):
        assert ask(path) is Writer.NONE
    with path.open("ab"):
        assert ask(path) is Writer.OPEN
    assert ask(path) is Writer.NONE
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_another_users_file_is_not_known(tmp_path: Path) -> None:
    """Who may read a file that is another user's cannot ask for a lease, and learns nothing."""
    if os.geteuid() != 0:
        pytest.skip("another user's file needs root")
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(0o644)
    descriptor = os.open(path, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os._exit(0 if find_writer(descriptor, tmp_path) is Writer.UNKNOWN else 1)
    os.close(descriptor)
    assert os.waitpid(child, 0)[1] == 0


def test_a_file_system_that_refuses_every_lease_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems give the answer for "someone writes" where nobody does: it is not believed there."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    real: Callable[..., int] = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(descriptor, command, argument)

    monkeypatch.setattr(file_lease.fcntl, "fcntl", refuse)
    assert ask(path) is Writer.UNKNOWN
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_writer_that_comes_meanwhile_is_not_refused_and_does_not_end_us(tmp_path: Path) -> None:
    """The signal that announces a writer ends a process that does not expect it: ours is one that is ignored."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    writer = subprocess.Popen([sys.executable, "-c", _OPENS, path])
    answers = []
    while writer.poll() is None:
        answers.append(ask(path))
    assert writer.returncode == 0
    assert set(answers) <= {Writer.NONE, Writer.OPEN}
    assert len(answers) > 100
