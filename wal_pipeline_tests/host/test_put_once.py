"""A file gets into a folder whole, once, and never over another."""

import errno
import os
from pathlib import Path

import pytest

from wal_pipeline.host.durable_file import put_once


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Where the file is, and where it goes."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    return ours / "file", theirs


@pytest.fixture(params=[False, True], ids=["one file system", "two file systems"])
def two_file_systems(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two folders may lie on different file systems, where no link is possible."""
    if not request.param:
        return
    link = os.link

    def link_within(source: Path, destination: Path) -> None:
        if Path(source).parent != Path(destination).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(source, destination)

    monkeypatch.setattr(os, "link", link_within)


@pytest.mark.usefixtures("two_file_systems")
def test_a_file_is_moved(folders: tuple[Path, Path]) -> None:
    """It is there alone, and nothing else is left."""
    source, folder = folders
    source.write_bytes(b"wal" * 1000)
    assert put_once(source, folder)
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_bytes() == b"wal" * 1000
    assert not source.exists()


@pytest.mark.usefixtures("two_file_systems")
def test_the_same_content_is_there_already(folders: tuple[Path, Path]) -> None:
    """Somebody else brought it: ours goes, theirs stays the same file."""
    source, folder = folders
    source.write_bytes(b"wal")
    (folder / "file").write_bytes(b"wal")
    inode = (folder / "file").stat().st_ino
    assert put_once(source, folder)
    assert (folder / "file").stat().st_ino == inode
    assert not source.exists()


@pytest.mark.usefixtures("two_file_systems")
def test_other_content_is_not_written_over(folders: tuple[Path, Path]) -> None:
    """Both stay, and the caller is told."""
    source, folder = folders
    source.write_bytes(b"wal")
    (folder / "file").write_bytes(b"other")
    assert not put_once(source, folder)
    assert (folder / "file").read_bytes() == b"other"
    assert source.read_bytes() == b"wal"
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.usefixtures("two_file_systems")
def test_after_a_kill_it_goes_on(folders: tuple[Path, Path]) -> None:
    """A kill after the second name was given leaves both; a copy of a killed call is written anew."""
    source, folder = folders
    source.write_bytes(b"wal")
    (folder / ".file.copy").write_bytes(b"w")
    assert put_once(source, folder)
    source.write_bytes(b"wal")
    assert put_once(source, folder)
    assert (folder / "file").read_bytes() == b"wal"


def test_a_folder_that_is_not_there_is_an_error(folders: tuple[Path, Path]) -> None:
    """Nothing is lost."""
    source, folder = folders
    source.write_bytes(b"wal")
    with pytest.raises(FileNotFoundError):
        put_once(source, folder / "none")
    assert source.exists()
