"""A scratch folder: one drill at a time, cleared after a kill, and nothing of anyone else ever touched."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wal_pipeline.commands.beside.scratch_folder import ScratchUse, scratch_folder
from wal_pipeline.errors import RestoreError

USE = ScratchUse("drill", "WAL_PIPELINE_DRILL_FOLDER")
MARK = ".wal-pipeline-drill"

_HOLD = """
import sys, time
from pathlib import Path
from wal_pipeline.commands.beside.scratch_folder import ScratchUse, scratch_folder
with scratch_folder(Path(sys.argv[1]), ScratchUse("drill", "FOLDER"), {"store": "r2"}):
    print("made", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "drill"


@pytest.fixture
def drill(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that holds the folder as a drill does."""
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def server_in(folder: Path, named: Path | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in a folder, as a postmaster does in its data directory, and write its postmaster.pid."""
    with subprocess.Popen(["env", "--default-signal=INT", "sleep", "60"], cwd=folder) as process:
        pgdata = named or folder
        (pgdata / "postmaster.pid").write_text(f"{process.pid}\n{pgdata}\n1700000000\n5432\n")
        try:
            yield process
        finally:
            process.kill()


def test_it_goes_with_the_drill(folder: Path) -> None:
    """However the drill ends, as long as its process lives."""
    with pytest.raises(ValueError, match="broken"), scratch_folder(folder, USE, {"store": "r2"}):
        assert [path.name for path in folder.iterdir()] == [MARK]
        raise ValueError("broken")
    assert not folder.exists()


def test_a_running_drill_is_left_alone(folder: Path, drill: "subprocess.Popen[bytes]") -> None:
    """The second one says so, and touches nothing."""
    with pytest.raises(RestoreError) as caught, scratch_folder(folder, USE, {"store": "b2"}):
        pytest.fail("two drills in one folder")
    assert caught.value.message == f"a drill is running in '{folder}'"
    assert (folder / MARK).exists()


def test_a_killed_drill_is_cleared_up(
    folder: Path, drill: "subprocess.Popen[bytes]", caplog: pytest.LogCaptureFixture
) -> None:
    """Its server is stopped, as fast as a server stops, and its folder is made anew."""
    (folder / "pgdata").mkdir()
    with server_in(folder / "pgdata") as server:
        drill.kill()
        drill.wait()
        with scratch_folder(folder, USE, {"store": "b2"}):
            assert not (folder / "pgdata").exists()
        assert server.wait(10) == -signal.SIGINT
    said = f'{{"pid": {drill.pid}, "store": "r2"}}'
    assert caplog.messages == [f"removed the folder '{folder}' of a drill that was killed: {said}"]


@pytest.mark.parametrize("where", ["elsewhere", "another data directory"])
def test_another_process_of_that_number_is_not_signalled(
    folder: Path, drill: "subprocess.Popen[bytes]", tmp_path: Path, where: str
) -> None:
    """A number in an old postmaster.pid may be anyone's by now."""
    (pgdata := folder / "pgdata").mkdir()
    drill.kill()
    drill.wait()
    with server_in(tmp_path, pgdata) if where == "elsewhere" else server_in(pgdata) as other:
        if where != "elsewhere":
            (pgdata / "postmaster.pid").write_text(f"{other.pid}\n/var/lib/postgresql/data\n")
        with scratch_folder(folder, USE, {"store": "r2"}):
            assert other.poll() is None


@pytest.mark.parametrize("text", ["", "no number\n", "1", "999999999\n/x\n"])
def test_a_server_that_is_gone(folder: Path, drill: "subprocess.Popen[bytes]", text: str) -> None:
    """Its postmaster.pid may be there still, whole or not."""
    (folder / "pgdata").mkdir()
    (folder / "pgdata" / "postmaster.pid").write_text(text)
    drill.kill()
    drill.wait()
    with scratch_folder(folder, USE, {"store": "r2"}):
        assert [path.name for path in folder.iterdir()] == [MARK]


def foreign_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "keep").touch()


def foreign_file(folder: Path) -> None:
    folder.write_text("keep")


def link(folder: Path) -> None:
    (target := folder.with_name("target")).mkdir()
    (target / MARK).write_text("{}")
    folder.symlink_to(target)


def linked_mark(folder: Path) -> None:
    folder.mkdir()
    (folder.parent / "mark").write_text("{}")
    (folder / MARK).symlink_to(folder.parent / "mark")


def beginning(folder: Path) -> None:
    folder.mkdir()
    (folder / MARK).touch()


@pytest.mark.parametrize(
    "make", [foreign_folder, foreign_file, link, linked_mark, beginning], ids=lambda make: make.__name__
)
def test_what_no_drill_left_is_never_removed(folder: Path, make: Callable[[Path], None]) -> None:
    """Without our mark in our folder it is someone else's; an empty mark is of a drill that is just beginning."""
    make(folder)
    before = sorted(folder.parent.iterdir())
    with pytest.raises(RestoreError) as caught, scratch_folder(folder, USE, {"store": "r2"}):
        pytest.fail("made over what was there")
    assert caught.value.message == f"the drill's folder '{folder}' exists"
    assert os.path.lexists(folder)
    assert sorted(folder.parent.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_never_removed(folder: Path) -> None:
    """In a folder that all may write to, someone else could put our mark beside a process of his choice."""
    folder.mkdir()
    (folder / MARK).write_text("{}")
    os.chown(folder, 12345, 12345)
    with pytest.raises(RestoreError), scratch_folder(folder, USE, {"store": "r2"}):
        pytest.fail("made over what was there")
    assert (folder / MARK).exists()
