"""Tests the lock that lets one shipper at a time work for a cluster."""

import os
from pathlib import Path

import pytest

from wal_pipeline.commands.shipper_lock import ShipLock
from wal_pipeline.errors import ShipperBusyError
from wal_pipeline_tests.support.nobody import as_nobody


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second is refused while the first one holds it; anyone can see that it is held."""
    lock, other = ShipLock(tmp_path / "state", "main"), ShipLock(tmp_path / "state", "main")
    assert not lock.is_held()
    with lock.held():
        assert other.is_held()
        with pytest.raises(ShipperBusyError) as caught, other.held():
            pass
        assert caught.value.message == (
            f"the WAL of cluster 'main' is being shipped by another process, which holds '{tmp_path}/state/ship.lock'"
        )
    assert not other.is_held()
    with other.held():
        pass


def test_each_cluster_has_its_own(tmp_path: Path) -> None:
    """A fleet may share a state folder."""
    with ShipLock(tmp_path, "main").held(), ShipLock(tmp_path, "orders").held():
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ship.lock", "ship.orders.lock"]


def test_a_process_that_died_holds_nothing(tmp_path: Path) -> None:
    """The kernel gives the lock back; the file that is left means nothing."""
    lock = ShipLock(tmp_path, "main")
    child = os.fork()
    if child == 0:
        with lock.held():
            os._exit(0)
    os.waitpid(child, 0)
    assert lock.path.exists()
    with lock.held():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the lock's file."""

    def hold() -> None:
        with ShipLock(tmp_path / "state", "main").held():
            pass

    told = as_nobody(hold)
    assert told.splitlines()[0] == f"lock '{tmp_path}/state/ship.lock' cannot be made: Permission denied"
