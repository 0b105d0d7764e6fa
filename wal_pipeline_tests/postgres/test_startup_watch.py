"""A server's own files and processes tell whether it is open, and what it does."""

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.postgres.control_file import ClusterState
from wal_pipeline.postgres.startup_watch import is_open, read_signs, server_status


def write_folder(folder: Path, state: ClusterState, status: str) -> None:
    """Write the two files that tell a server's state."""
    (folder / "global").mkdir()
    start = struct.pack("<QIII", 7, 1800, 202506291, state)
    (folder / "global" / "pg_control").write_bytes(start.ljust(8192, b"\0"))
    (folder / "postmaster.pid").write_text(f"1\n{folder}\n0\n5432\n/tmp\n*\n1 1\n{status:<8}\n")


def test_a_base_backup_that_begins_to_recover_is_not_open(tmp_path: Path) -> None:
    """Its control file says "in production", as its original's did."""
    write_folder(tmp_path, ClusterState.IN_PRODUCTION, "ready")
    (tmp_path / "recovery.signal").touch()
    assert not is_open(tmp_path)
    (tmp_path / "recovery.signal").unlink()
    assert is_open(tmp_path)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (ClusterState.IN_ARCHIVE_RECOVERY, "ready"),
        (ClusterState.IN_PRODUCTION, "starting"),
        (ClusterState.IN_PRODUCTION, "stopping"),
        (ClusterState.SHUT_DOWN, "ready"),
    ],
)
def test_a_server_that_does_not_take_writes_is_not_open(tmp_path: Path, state: ClusterState, status: str) -> None:
    """A hot standby is ready too."""
    write_folder(tmp_path, state, status)
    assert not is_open(tmp_path)


def test_a_folder_without_a_server_is_not_open(tmp_path: Path) -> None:
    """Nothing can be read."""
    assert (is_open(tmp_path), server_status(tmp_path)) == (False, "")


@pytest.mark.integration
def test_a_running_server_is_open_and_shows_signs(
    postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster]
) -> None:
    """A checkpoint is a sign; silence is none."""
    with make_cluster(postgres_version) as cluster:
        assert is_open(cluster.pgdata)
        first = read_signs(cluster.pid, cluster.pgdata, [])
        time.sleep(1)
        assert read_signs(cluster.pid, cluster.pgdata, []) == first
        cluster.psql("CREATE TABLE t (n int); CHECKPOINT")
        assert read_signs(cluster.pid, cluster.pgdata, []) != first


def test_a_file_that_comes_in_is_a_sign(tmp_path: Path) -> None:
    """Fetching one large segment over a slow line changes nothing else for hours."""
    first = read_signs(os.getpid(), tmp_path / "pgdata", [tmp_path])
    (tmp_path / "segment").write_bytes(b"x")
    assert read_signs(os.getpid(), tmp_path / "pgdata", [tmp_path]) != first
