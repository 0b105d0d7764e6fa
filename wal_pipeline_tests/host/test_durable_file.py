"""Files that are put or moved in place whole or not at all."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wal_pipeline.host import durable_file
from wal_pipeline.host.durable_file import move_whole, write_whole
from wal_pipeline_tests.support.nobody import NOBODY


@pytest.mark.parametrize("size_bytes", [0, 1, 256 * 1024, 3 * 256 * 1024 + 17])
def test_a_file_is_whole_whatever_its_size(tmp_path: Path, size_bytes: int) -> None:
    """It is written in blocks; nothing is left out or repeated, and nothing else is left behind."""
    data = bytes(number * 7 % 251 for number in range(size_bytes))
    write_whole(data, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("mode", "umask", "found"), [(0o600, 0, 0o600), (0o644, 0o077, 0o644), (None, 0o027, 0o640)])
def test_a_file_has_the_mode_that_is_asked_for(tmp_path: Path, mode: int | None, umask: int, found: int) -> None:
    """Exactly, or the one that the umask allows; a file that it replaces does not count."""
    (tmp_path / "file").touch(0o666)
    before = os.umask(umask)
    try:
        write_whole(b"new", tmp_path / "file", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_file_belongs_to_whom_it_is_for(tmp_path: Path) -> None:
    """Root writes it for another user."""
    write_whole(b"new", tmp_path / "file", owner=(NOBODY, NOBODY))
    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (NOBODY, NOBODY, 0o600)


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    """It is the system's own error, and no half file stays."""
    (tmp_path / "file" / "below").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_whole(b"new", tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        write_whole(b"new", tmp_path / "none" / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_that_somebody_planted_is_not_written_through(tmp_path: Path) -> None:
    """Root writes into folders of other users: the name of the new file may be guessed."""
    (kept := tmp_path / "kept").write_text("kept")
    number = next(durable_file._numbers) + 1
    (tmp_path / f".file.{os.getpid()}.{number}.tmp").symlink_to(kept)
    write_whole(b"new", tmp_path / "file")
    assert kept.read_text() == "kept"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    """Of the same file alone: a living writer's, and those of a file with a longer name, stay."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    gone, ours = ended.pid, os.getpid()
    stays = {f".file.{ours}.9999999.tmp", f".file.{gone}.backup.{ours}.0.tmp", f".file.history.{gone}.0.tmp"}
    for name in {f".file.{gone}.tmp", f".file.{gone}.0.tmp"} | stays:
        (tmp_path / name).touch()
    write_whole(b"new", tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"file"} | stays


def test_a_file_is_moved(tmp_path: Path) -> None:
    """On one file system it is renamed: the file stays the same."""
    (tmp_path / "from").write_text("data")
    inode = (tmp_path / "from").stat().st_ino
    move_whole(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to").stat().st_ino == inode
    assert not (tmp_path / "from").exists()


def test_a_file_is_moved_to_another_file_system(tmp_path: Path, other_file_system: Path) -> None:
    """It is copied whole, and then removed; nothing is moved where there is nothing."""
    data = bytes(range(256)) * 4096
    (tmp_path / "from").write_bytes(data)
    move_whole(tmp_path / "from", other_file_system / "to")
    assert (other_file_system / "to").read_bytes() == data
    assert [path.name for path in other_file_system.iterdir()] == ["to"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        move_whole(tmp_path / "from", other_file_system / "to")
    assert (other_file_system / "to").read_bytes() == data
