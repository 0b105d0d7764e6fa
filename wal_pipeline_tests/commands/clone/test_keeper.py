"""A keeper ends its clone at its time, leaves when a person was faster, and says when it stands."""

import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.clone.end import CloneEnder
from wal_pipeline.commands.clone.folder import CloneFolder, make_clone_root
from wal_pipeline.commands.clone.keeper import keep_clone, start_keeper
from wal_pipeline.commands.clone.keeper_lock import is_kept, keeping
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.clone_records import NOW, clone_record


@pytest.fixture
def folder(tmp_path: Path) -> CloneFolder:
    """A clone without a server, whose time is over in two hours."""
    make_clone_root(tmp_path / "clones")
    made = CloneFolder(tmp_path / "clones", "shop")
    with made.made():
        made.pgdata(1).mkdir(parents=True)
        made.write(clone_record())
    return made


def ender(folder: CloneFolder, now: datetime) -> CloneEnder:
    """Return what ends clones at this moment."""
    return CloneEnder(folder.root, "main", lambda: now, AuditLog(folder.root.parent / "state", lambda: now))


def test_it_ends_the_clone_at_its_time(folder: CloneFolder) -> None:
    """It says that it stands before it waits."""
    over, said = NOW + timedelta(hours=2), []
    keep_clone(folder, ender(folder, over), lambda: over, lambda: said.append(is_kept(folder)))
    assert said == [True]
    assert not folder.path.exists()


def test_a_clone_has_one_keeper(folder: CloneFolder) -> None:
    """A second one leaves at once, though the time is over."""
    over = NOW + timedelta(hours=2)
    with keeping(folder):
        keep_clone(folder, ender(folder, over), lambda: over, lambda: None)
    assert folder.path.exists()


def test_it_leaves_when_a_person_was_faster(folder: CloneFolder) -> None:
    """The clone is gone, and its keeper with it."""
    keep_clone(folder, ender(folder, NOW), lambda: NOW, lambda: ender(folder, NOW).stop("shop") and None)
    assert not folder.path.exists()


def test_a_keeper_that_does_not_start_is_told(folder: CloneFolder) -> None:
    """A clone without one would stay for ever."""
    with pytest.raises(RestoreError, match="the keeper of the clone 'shop', which ends it at its time, did not start"):
        start_keeper(folder, [sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(RestoreError, match="cannot be started"):
        start_keeper(folder, ["/no/such/program"])
