"""The generated line from its first call to its last: one start of the program, whatever is asked."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wal_pipeline.commands.archive_get.restore_command import prefetch_folder
from wal_pipeline_tests.support.restore_archive import SYSTEM_IDENTIFIER, WatchedStore, run_line, segment_bytes

SEGMENTS = [f"0000000100000000000000{number:02X}" for number in range(3, 9)]


class Recovery:
    """A data directory, an archive in a folder, and a count of the starts of our program."""

    def __init__(self, folder: Path) -> None:
        self.pgdata = folder / "pgdata"
        (self.pgdata / "pg_wal").mkdir(parents=True)
        self.store = WatchedStore("local", folder / "store")
        self.starts = folder / "starts"
        counting = folder / "counting"
        counting.mkdir()
        # Python runs it at each start, unless with -I -S, as the small script that asks.
        (counting / "sitecustomize.py").write_text(f"open({str(self.starts)!r}, 'a').write('x')\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(counting),
            "WAL_PIPELINE_STORES": "local",
            "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(folder / "store"),
        }
        self.folder = prefetch_folder(self.pgdata, SYSTEM_IDENTIFIER)
        options = ["--print-restore-command", f"--system-identifier={SYSTEM_IDENTIFIER}", "--retry-seconds=0"]
        printed = subprocess.run(
            [sys.executable, "-P", "-m", "wal_pipeline.cli.archive_get", *options],
            check=True, capture_output=True, text=True, cwd=self.pgdata, env=self.environment, timeout=60,
        )  # fmt: skip
        self.line = printed.stdout.strip()
        self.starts.unlink()

    def call(self, name: str, **variables: str) -> int:
        """Run the line for a file, as PostgreSQL does."""
        return run_line(self.line.replace("%f", name), self.pgdata, {**self.environment, **variables})

    @property
    def restored(self) -> bytes:
        """What lies where PostgreSQL expects it."""
        return (self.pgdata / "pg_wal/RECOVERYXLOG").read_bytes()


@pytest.fixture
def recovery(tmp_path: Path) -> Iterator[Recovery]:
    """A recovery that begins. At its end the folder goes, and the process that fetches ahead with it."""
    made = Recovery(tmp_path)
    yield made
    lock = made.folder.path / "lock"
    with lock.open("a") as held:

        def has_ended() -> bool:
            made.folder.destroy()  # again, where a file that was fetched meanwhile kept the folder
            return not is_locked(held.fileno())

        wait_until(has_ended)


def test_one_start_serves_a_whole_recovery(recovery: Recovery) -> None:
    """A history file that is absent, segments, the end, a segment that arrives later, the last one once more."""
    for name in SEGMENTS[:-1]:
        recovery.store.add(name)
    assert recovery.call("00000002.history") == 1
    for name in SEGMENTS[:-1]:
        assert recovery.call(name) == 0
        assert recovery.restored == segment_bytes(name)
    assert recovery.call(SEGMENTS[-1]) == 1
    recovery.store.add(SEGMENTS[-1])
    assert recovery.call(SEGMENTS[-1]) == 0
    assert recovery.restored == segment_bytes(SEGMENTS[-1])
    assert recovery.call(SEGMENTS[-2]) == 0
    assert recovery.restored == segment_bytes(SEGMENTS[-2])
    assert recovery.call("00000002.history") == 1
    assert recovery.starts.read_text() == "x"


def test_a_store_that_goes_away_is_never_taken_for_the_end(recovery: Recovery) -> None:
    """Where the process that fetches ahead cannot tell, the program looks too, and fails."""
    recovery.store.add(SEGMENTS[0])
    assert recovery.call(SEGMENTS[0]) == 0
    recovery.store.folder.rename(recovery.store.folder.with_name("unplugged"))
    assert recovery.call(SEGMENTS[3]) == 200
    assert recovery.call("00000002.history") == 200
    recovery.store.folder.with_name("unplugged").rename(recovery.store.folder)
    assert recovery.call("00000002.history") == 1
    assert recovery.starts.read_text() == "xxx"


def test_a_killed_process_is_replaced(recovery: Recovery) -> None:
    """After its end by SIGKILL the next call is the program's, and starts another one."""
    for name in SEGMENTS:
        recovery.store.add(name)
    assert recovery.call("00000002.history") == 1
    os.kill(holder_of(recovery.folder.path), 9)
    assert recovery.call(SEGMENTS[0]) == 0
    assert recovery.call(SEGMENTS[1]) == 0
    assert recovery.restored == segment_bytes(SEGMENTS[1])
    assert recovery.starts.read_text() == "xx"


def holder_of(folder: Path) -> int:
    """Return the process whose current folder this is: the one that fetches ahead goes there."""
    found = [
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cwd") if readable(path) == str(folder.resolve())
    ]
    assert len(found) == 1
    return found[0]


def readable(link: Path) -> str:
    """Return where a link leads, and nothing where its process has gone."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def is_locked(descriptor: int) -> bool:
    """Whether another process holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so. Raises: AssertionError."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
