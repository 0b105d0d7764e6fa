"""Tests the spool's lock: one archiver at a time, whoever made the file, and never through a link."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.errors import SpoolBusyError, SpoolError
from wal_pipeline.spool import LOCK_NAME, WANTED_NAME, Spool
from wal_pipeline_tests.support.nobody import NOBODY, as_nobody, nobodys_folder
from wal_pipeline_tests.support.segments import spool_segments

SETTLE_SECONDS = 60.0


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool", tmp_path / "quarantine", SETTLE_SECONDS)


def test_a_lock_that_is_a_link_is_refused(spool: Spool, tmp_path: Path) -> None:
    """The lock makes and locks nothing at the target of a link."""
    (spool.folder / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError, match="cannot be written: Too many levels of symbolic links"), spool.lock():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_one_archiver_at_a_time(spool: Spool) -> None:
    """The lock keeps a second archiver out, ends with its block, and is no file of the archive."""
    with spool.lock():
        assert spool.busy()
        with pytest.raises(SpoolBusyError, match="is being archived by another process"), spool.lock():
            pass
    assert not spool.busy()
    assert spool.scan(datetime.now(UTC)).foreign == ()


def test_who_only_looks_does_not_turn_a_run_away(spool: Spool) -> None:
    """A look whether the spool is busy takes the lock for an instant, and a run that begins then waits for it."""
    assert not spool.busy()
    looker = os.open(spool.folder / LOCK_NAME, os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    timer = threading.Timer(0.3, os.close, [looker])
    timer.start()
    assert not spool.busy()
    with spool.lock():
        pass
    timer.join()


def test_a_run_that_only_waits_is_asked_for_the_lock(spool: Spool) -> None:
    """Whoever wants to archive says so, and gets the lock as soon as the run that lingers has seen it."""
    other = Spool(spool.folder, spool.quarantine_folder, SETTLE_SECONDS)
    got, leaves = threading.Event(), threading.Event()

    def archive() -> None:
        with other.lock():
            got.set()
            leaves.wait(10)

    with spool.lock():
        assert not spool.is_wanted()
        thread = threading.Thread(target=archive)
        thread.start()
        deadline = time.monotonic() + 2.5
        while not spool.is_wanted() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert time.monotonic() < deadline
        assert not got.is_set()
    assert got.wait(5)
    time.sleep(0.6)
    assert not other.is_wanted()
    leaves.set()
    thread.join()


def test_a_mark_that_cannot_be_read_does_not_end_a_run(spool: Spool, tmp_path: Path) -> None:
    """A link, or no file at all: nobody asks."""
    assert not spool.is_wanted()
    (spool.folder / WANTED_NAME).symlink_to(tmp_path / "elsewhere")
    time.sleep(0.6)
    assert not spool.is_wanted()


def lock(spool: Spool) -> None:
    with spool.lock():
        pass


@pytest.fixture
def nobodys_spool() -> Iterator[Spool]:
    """A spool of another user."""
    with nobodys_folder("spool") as folder:
        yield Spool(folder, folder.parent / "quarantine", SETTLE_SECONDS)


def test_what_root_makes_is_the_services(nobodys_spool: Spool) -> None:
    """A lock and a quarantine that root's command made can be used by the service's user."""
    lock(nobodys_spool)
    spool_segments(nobodys_spool.folder, [1])
    [file] = nobodys_spool.scan(datetime.now(UTC)).ready
    assert nobodys_spool.quarantine(file, datetime.now(UTC)) is not None
    assert as_nobody(lambda: lock(nobodys_spool)) == ""
    for path in (nobodys_spool.folder / LOCK_NAME, nobodys_spool.quarantine_folder):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)


def test_a_lock_that_may_not_be_opened_is_named(nobodys_spool: Spool) -> None:
    """The error names the owner and the command that mends it; root's next command mends it too."""
    path = nobodys_spool.folder / LOCK_NAME
    path.touch(mode=0o600)
    told = as_nobody(lambda: lock(nobodys_spool))
    assert told.startswith(f"spool '{nobodys_spool.folder}' cannot be written: Permission denied\n")
    assert told.endswith(
        f"HINT: '{path}' belongs to user 'root', and user 'nobody' may not open it; type: sudo chown nobody: {path}."
    )
    lock(nobodys_spool)
    assert as_nobody(lambda: lock(nobodys_spool)) == ""


def test_the_lock_is_not_blamed_for_what_happens_inside(spool: Spool) -> None:
    """An error inside the block is raised unchanged, even if it is of the lock's own kind."""
    with pytest.raises(BlockingIOError), spool.lock():
        raise BlockingIOError
