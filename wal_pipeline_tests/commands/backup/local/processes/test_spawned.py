"""Worker processes that are started before the base backup is ready."""

import os
import signal
import subprocess
from contextlib import closing

import pytest

from wal_pipeline.commands.backup.local.processes import spawned as module
from wal_pipeline.commands.backup.local.processes.spawned import SpawnedAhead, spawn_worker


def is_there(pid: int) -> bool:
    """Whether a process of this id was not waited for yet."""
    return os.path.exists(f"/proc/{pid}")  # noqa: PTH110 - as the kernel shows it


def test_processes_that_were_started_ahead_are_taken_first() -> None:
    """The one that waits is handed out, then one is started; what nobody took ends with the block."""
    with closing(SpawnedAhead(2)) as ahead:
        waiting = [one.process.pid for one in ahead._waiting]
        first = ahead.take()
        assert first.process.pid == waiting[0]
        assert first.process.poll() is None
    assert not is_there(waiting[1])
    assert is_there(waiting[0])
    later = ahead.take()
    assert later.process.pid not in waiting
    assert [first.end(), later.end()] == [0, 0]


def test_those_that_wait_end_at_once_where_they_are_not_needed() -> None:
    """So it is where pg_basebackup takes the base backup; a second call does no harm."""
    with closing(SpawnedAhead(1)) as ahead:
        [waiting] = ahead._waiting
        ahead.close()
        assert waiting.process.returncode == 0
        ahead.close()


def test_where_no_process_starts_that_is_said_when_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting ahead raises nothing: the base backup itself says why it works in threads."""

    def refuse() -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module, "spawn_worker", refuse)
    with closing(SpawnedAhead(2)) as ahead, pytest.raises(BlockingIOError):
        ahead.take()


def test_what_a_person_set_for_glibc_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of two values of a name counts, for glibc too."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert module._environment()["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert module._environment()["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1:glibc.malloc.hugetlb=0"


def test_control_c_does_not_reach_a_process_that_loads() -> None:
    """The base backup gets it too, and ends the process; until then it prints no traceback."""
    with closing(SpawnedAhead(1)) as ahead:
        [waiting] = ahead._waiting
        waiting.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.process.wait(2)
    assert waiting.process.returncode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_process_without_work_ends_with_its_connection() -> None:
    """Where the base backup is killed nothing of it stays."""
    worker = spawn_worker()
    worker.connection.close()
    assert worker.process.wait(30) == 0
