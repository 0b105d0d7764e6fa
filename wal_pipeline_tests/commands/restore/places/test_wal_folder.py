"""Where the WAL of a restored cluster goes."""

from pathlib import Path

import pytest

from wal_pipeline.commands.restore.places.wal_folder import WalFolder, other_links, plan_wal_folder
from wal_pipeline.errors import RestoreError


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An old data directory whose WAL has a disk of its own."""
    (tmp_path / "old").mkdir()
    (tmp_path / "wal/archive_status").mkdir(parents=True)
    (tmp_path / "wal/000000010000000000000001").touch()
    (tmp_path / "old/pg_wal").symlink_to(tmp_path / "wal")
    return tmp_path / "old"


def test_a_plain_folder_stays_one(tmp_path: Path) -> None:
    """Nothing is said of the WAL, and nothing was linked."""
    assert plan_wal_folder(tmp_path / "new", None, replaced=False) is None


def test_the_old_link_is_kept(old: Path, tmp_path: Path) -> None:
    """With --force the WAL stays on its own disk, and the old cluster's WAL does not stay there."""
    assert plan_wal_folder(old, None, replaced=True) == WalFolder(tmp_path / "wal", emptied=True, kept=True)
    assert plan_wal_folder(old, tmp_path / "wal", replaced=True) == WalFolder(tmp_path / "wal", emptied=True, kept=True)
    assert plan_wal_folder(old, tmp_path / "more", replaced=True) == WalFolder(
        tmp_path / "more", emptied=False, kept=False
    )


def test_nothing_but_wal_is_removed_behind_a_link(old: Path, tmp_path: Path) -> None:
    """The link may point to a folder that holds other things."""
    (tmp_path / "wal/precious").touch()
    with pytest.raises(RestoreError) as caught:
        plan_wal_folder(old, None, replaced=True)
    assert caught.value.message == (
        f"'{old / 'pg_wal'}' is a link to '{tmp_path / 'wal'}', which holds 'precious', expected only WAL"
    )


def test_a_disk_that_is_not_mounted_is_named(old: Path, tmp_path: Path) -> None:
    """The WAL does not go onto the wrong disk without a word."""
    (tmp_path / "wal").rename(tmp_path / "gone")
    with pytest.raises(RestoreError, match="where no folder is"):
        plan_wal_folder(old, None, replaced=True)


def test_a_folder_in_use_is_not_taken(old: Path, tmp_path: Path) -> None:
    """A given folder must be empty, but for a file system's own."""
    (tmp_path / "fresh/lost+found").mkdir(parents=True)
    assert plan_wal_folder(tmp_path / "new", tmp_path / "fresh", replaced=False) is not None
    with pytest.raises(RestoreError, match="is not empty: it holds"):
        plan_wal_folder(tmp_path / "new", tmp_path / "wal", replaced=False)
    with pytest.raises(RestoreError, match="overlap"):
        plan_wal_folder(old, old / "pg_wal2", replaced=True)


def test_other_links_are_known(old: Path) -> None:
    """A restore puts no link in their places, and the plan names them."""
    (old / "log").symlink_to("/var/log/pg")
    assert other_links(old) == {"log": "/var/log/pg"}
