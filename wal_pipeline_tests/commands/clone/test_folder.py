"""A clone's folder: made once, locked, and nothing of anyone else ever removed."""

import os
import subprocess
from pathlib import Path

import pytest

from wal_pipeline.commands.clone.folder import (
    KEEPER,
    MARK,
    CloneBusyError,
    CloneFolder,
    clone_folders,
    clone_of,
    make_clone_root,
)
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.clone_records import clone_record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_clone_root(tmp_path / "clones")
    return tmp_path / "clones"


@pytest.fixture
def shop(root: Path) -> CloneFolder:
    """A clone that stands, without a server."""
    folder = CloneFolder(root, "shop")
    with folder.made():
        folder.pgdata(1).mkdir(parents=True)
        (folder.pgdata(1) / "PG_VERSION").write_text("18\n")
        folder.point_socket(1)
        (folder.path / KEEPER).touch()
        folder.write(clone_record())
    return folder


def test_a_clone_is_found_by_its_mark(root: Path, shop: CloneFolder) -> None:
    """What lies beside it is not one."""
    (root / "lost+found").mkdir()
    (root / "link").symlink_to(shop.path)
    assert [one.name for one in clone_folders(root)] == ["shop"]
    assert clone_folders(root / "missing") == []
    assert shop.read() == clone_record()
    assert str(shop.socket.readlink()) == "1/socket"


def test_a_name_is_given_once(shop: CloneFolder) -> None:
    """The second one finds the folder, and leaves it."""
    with pytest.raises(FileExistsError), shop.made():
        pytest.fail("two clones in one folder")
    assert shop.read() is not None


def test_what_fails_leaves_nothing(root: Path) -> None:
    """Also where the folder was filled already."""
    folder = CloneFolder(root, "shop")
    with pytest.raises(ValueError, match="broken"), folder.made():
        folder.pgdata(1).mkdir(parents=True)
        raise ValueError("broken")
    assert list(root.iterdir()) == []


def test_a_folder_without_a_mark_is_nobodys_clone(root: Path) -> None:
    """It keeps its name and its files; an empty one, of a command that was killed at once, is in nobody's way."""
    (root / "other").mkdir()
    (root / "other" / "keep").touch()
    (root / "empty").mkdir()
    with pytest.raises(FileExistsError), CloneFolder(root, "other").made():
        pytest.fail("made over what was there")
    with pytest.raises(RestoreError, match="there is no clone 'other'"), CloneFolder(root, "other").locked():
        pytest.fail("locked what is no clone")
    assert (root / "other" / "keep").exists()
    with CloneFolder(root, "empty").made():
        assert (root / "empty" / MARK).exists()


def test_one_command_at_a_time(shop: CloneFolder) -> None:
    """The other one says so."""
    with shop.locked(), pytest.raises(CloneBusyError) as caught, shop.locked():
        pytest.fail("two commands")
    assert caught.value.message == "another command is making, moving or ending the clone 'shop'"


def test_it_is_removed_whole(root: Path, shop: CloneFolder) -> None:
    """With every generation of its files, links and all, and nothing that a link points to."""
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    (shop.pgdata(1) / "pg_wal").symlink_to(outside)
    shop.pgdata(2).mkdir(parents=True)
    with shop.locked():
        shop.remove()
    assert list(root.iterdir()) == []
    assert (outside / "keep").exists()


def test_another_process_of_that_number_lives_on(shop: CloneFolder, tmp_path: Path) -> None:
    """The number in an old postmaster.pid is anyone's by now."""
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as other:
        (shop.pgdata(1) / "postmaster.pid").write_text(f"{other.pid}\n{shop.pgdata(1)}\n1700000000\n5432\n")
        try:
            with shop.locked():
                shop.remove()
            assert other.poll() is None
        finally:
            other.kill()
    assert not shop.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_left_alone(root: Path, shop: CloneFolder) -> None:
    """Root removes no tree that somebody else has marked."""
    os.chown(shop.path, 12345, 12345)
    with pytest.raises(RestoreError, match="the clone 'shop' is another user's"), shop.locked():
        pytest.fail("locked another user's")
    os.chown(root, 12345, 12345)
    with pytest.raises(RestoreError, match="is another user's, or others may write in it"):
        make_clone_root(root)


def test_a_root_in_which_all_may_write_is_refused(tmp_path: Path) -> None:
    """Somebody could put a folder of his own in a clone's place."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(RestoreError, match="others may write in it"):
        make_clone_root(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RestoreError, match="is not a folder"):
        make_clone_root(tmp_path / "link")


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    """It is refused before anything is downloaded."""
    with pytest.raises(RestoreError, match="bytes, expected at most 107") as caught:
        CloneFolder(tmp_path / ("x" * 100), "shop").require_short_path(5432)
    assert caught.value.hint is not None
    assert "WAL_PIPELINE_CLONE_FOLDER" in caught.value.hint
    CloneFolder(Path("/var/tmp/wal-pipeline-clones-main"), "a" * 30).require_short_path(65535)  # noqa: S108 - no file


def test_a_data_directory_tells_its_clone(shop: CloneFolder, tmp_path: Path) -> None:
    """So that nobody takes one for the cluster."""
    assert clone_of(shop.pgdata(1)) == "shop"
    assert clone_of(tmp_path) is None
