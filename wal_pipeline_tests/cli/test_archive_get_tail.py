"""``archive-get --tail`` as PostgreSQL runs it: what the exit codes say of a segment that is there in pieces."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.restore_archive import (
    LAYOUT,
    SEGMENT_SIZE,
    SYSTEM_IDENTIFIER,
    WatchedStore,
    segment_bytes,
)

NAME = "000000010000000000000003"
NEXT = "000000010000000000000004"
END = 200_000
PADDED = segment_bytes(NAME)[:END].ljust(SEGMENT_SIZE, b"\0")


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    """A store with the beginning of a segment in two pieces."""
    made = WatchedStore("local", tmp_path / "store")
    data = segment_bytes(NAME)
    pieces = cut(NAME, data, [0, 1000, END], system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_SIZE)
    put_pieces(ClusterStore(made, LAYOUT), pieces, data)
    return made


@pytest.fixture
def run(store: WatchedStore, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return what runs the program in a data directory, for a file or with other arguments."""
    (tmp_path / "pgdata" / "pg_wal").mkdir(parents=True)
    environment = {
        "PATH": os.environ["PATH"],
        "WAL_PIPELINE_STORES": "local",
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(store.folder),
    }

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        options = [f"--system-identifier={SYSTEM_IDENTIFIER}", "--no-prefetch", "--retry-seconds=0"]
        return subprocess.run(
            [sys.executable, "-P", "-m", "wal_pipeline.cli.archive_get", *options, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path / "pgdata",
            env=environment,
            timeout=60,
        )

    return call


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_padded_segment_is_delivered(run: Run, tmp_path: Path) -> None:
    """The server's log says what it is; the next segment is proven absent."""
    done = run("--tail=1", NAME, "pg_wal/RECOVERYXLOG")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pgdata/pg_wal/RECOVERYXLOG").read_bytes() == PADDED
    assert f"no store has '{NAME}' whole: 2 pieces up to 0/330D40, then zeros" in done.stderr
    assert run("--tail=1", NEXT, "pg_wal/RECOVERYXLOG").returncode == 1


def test_without_the_option_it_is_absent(run: Run) -> None:
    """A recovery that was not planned with pieces gets none."""
    assert run(NAME, "pg_wal/RECOVERYXLOG").returncode == 1
    assert run("--tail=2", NAME, "pg_wal/RECOVERYXLOG").returncode == 1


def test_less_than_was_planned_is_no_absence(run: Run) -> None:
    """PostgreSQL stops rather than end its recovery there."""
    done = run("--tail=1", f"--tail-reach={NAME}+{END + 1}", NAME, "pg_wal/RECOVERYXLOG")
    assert done.returncode == 200
    assert f"pieces on local are its first {END} bytes, expected at least {END + 1}" in done.stderr


def test_a_following_standby_gets_no_pieces(run: Run) -> None:
    """It would take the padded segment for a finished one."""
    done = run("--tail=1", "--standby", NAME, "pg_wal/RECOVERYXLOG")
    assert done.returncode == 200
    assert "ERROR: '--tail' cannot be given with '--standby'" in done.stderr


def test_a_standby_that_is_made_of_a_restored_server_gets_no_pieces(run: Run, tmp_path: Path) -> None:
    """The line of the restore still has the option."""
    (tmp_path / "pgdata/standby.signal").touch()
    assert run("--tail=1", NAME, "pg_wal/RECOVERYXLOG").returncode == 1


def test_a_place_that_is_none_is_refused(run: Run) -> None:
    """Above 125, so that PostgreSQL does not take it for the archive's end."""
    done = run("--tail=1", "--tail-end=0/3000000", NAME, "pg_wal/RECOVERYXLOG")
    assert done.returncode == 200
    assert "'0/3000000' is not a place in the WAL, expected <segment>+<bytes>" in done.stderr


def test_the_line_that_is_printed_has_the_options(run: Run) -> None:
    """As 'restore' writes them."""
    done = run("--tail=1", f"--tail-end={NAME}+{END}", "--print-restore-command")
    assert done.returncode == 0, done.stderr
    assert f"--tail=1 --tail-end={NAME}+{END} " in done.stdout
