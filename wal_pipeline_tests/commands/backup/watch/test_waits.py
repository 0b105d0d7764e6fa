"""A base backup says what it waits for, and waits for no server without end."""

import threading
import time
from datetime import UTC, datetime
from typing import cast

import pytest

from wal_pipeline.commands.backup.watch import waits
from wal_pipeline.commands.backup.watch.waits import BackupWait, SilenceWatch
from wal_pipeline.errors import BaseBackupError, PostgresError
from wal_pipeline.postgres.backup_server import BackupPhaseSeen, BackupServer

AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)
ARCHIVER = BackupPhaseSeen("waiting for wal archiving to finish", "0000000100000000000000AA", AT, None, None)


class AskedServer:
    """Stands for a server that is asked for the base backup's phase."""

    def __init__(self, answer: BackupPhaseSeen | PostgresError | None) -> None:
        self.answer = answer

    def backup_phase(self) -> BackupPhaseSeen | None:
        """Return the answer."""
        if isinstance(self.answer, PostgresError):
            raise self.answer
        return self.answer


class SlowSource:
    """A source whose reads take a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def read(self, size: int, /) -> bytes:
        """Return nothing, late."""
        time.sleep(self.seconds)
        return b"x"[:size]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak after a tenth of a second."""
    monkeypatch.setattr(waits, "_SILENT_SECONDS", 0.1)


def watched(
    answer: BackupPhaseSeen | PostgresError | None,
    *,
    read_seconds: float,
    limit_seconds: float = 60,
    grows: bool = False,
) -> tuple[list[BackupWait], list[BaseBackupError]]:
    """Read once through a watch, and return what it told and how it ended the program."""
    told: list[BackupWait] = []
    ended: list[BaseBackupError] = []
    count = iter(range(1_000_000))
    server = cast(BackupServer, AskedServer(answer))
    watch = SilenceWatch(
        server,
        limit_seconds,
        done_bytes=lambda: next(count) if grows else 0,
        tell=told.append,
        end=ended.append,
        poll_seconds=0.02,
    )
    with watch:
        watch.source(SlowSource(read_seconds)).read(1)
    return told, ended


def test_a_wait_for_the_archiver_is_not_silent() -> None:
    """It names the file that failed and when, and says it once a minute."""
    told, ended = watched(ARCHIVER, read_seconds=0.6)
    [wait] = told
    assert wait.is_archiver
    assert wait.text.startswith(
        "PostgreSQL waits for its archiver (last failure '0000000100000000000000AA' at 2026-11-22 17:45:00Z), since "
    )
    assert ended == []


def test_a_wait_without_end_ends() -> None:
    """After the limit the program is stopped with the reason and the setting."""
    told, ended = watched(ARCHIVER, read_seconds=0.8, limit_seconds=0.3)
    assert len(told) == 2
    [error] = ended
    assert error.message.startswith("given up after 0.3 s: PostgreSQL waits for its archiver (last failure '")
    assert "wal-pipeline check" in (error.hint or "")
    assert "WAL_PIPELINE_BASE_BACKUP_ARCHIVER_TIMEOUT_SECONDS" in (error.hint or "")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            BackupPhaseSeen("waiting for checkpoint to finish", None, None, None, None),
            "PostgreSQL waits for a checkpoint",
        ),
        (
            BackupPhaseSeen("waiting for wal archiving to finish", "00A", AT, "00B", AT.replace(hour=18)),
            "PostgreSQL waits for its archiver (last archived '00B')",
        ),
        (None, "PostgreSQL sends nothing"),
        (PostgresError("cannot connect"), "PostgreSQL sends nothing, and cannot be asked why: cannot connect"),
    ],
)
def test_every_wait_says_what_it_is_for(answer: BackupPhaseSeen | PostgresError | None, text: str) -> None:
    """A checkpoint, an archiver that works again, and a server that is not there any more."""
    told, _ = watched(answer, read_seconds=0.4)
    assert told[0].text.startswith(f"{text}, since ")


def test_a_slow_server_that_sends_is_not_waited_for() -> None:
    """A megabyte may take half a minute at the lowest rate: pg_basebackup's own count grows."""
    assert watched(ARCHIVER, read_seconds=0.5, limit_seconds=0.3, grows=True) == ([], [])


def test_a_slow_store_is_no_silent_server() -> None:
    """Nobody reads meanwhile, so nobody waits for the server."""
    told: list[BackupWait] = []
    server = cast(BackupServer, AskedServer(ARCHIVER))
    with SilenceWatch(server, 0.2, done_bytes=lambda: 0, tell=told.append, end=told.append, poll_seconds=0.02) as watch:
        watch.source(SlowSource(0)).read(1)
        time.sleep(0.5)
    assert told == []
    assert threading.active_count() < 50
