"""Clones end at their time, and what a killed command or a restart left is removed; nothing else is."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from wal_pipeline.commands.audit import FILE_NAME, AuditLog
from wal_pipeline.commands.clone.end import CloneEnder
from wal_pipeline.commands.clone.folder import MARK, CloneFolder, make_clone_root
from wal_pipeline.commands.clone.keeper_lock import is_kept, keeping
from wal_pipeline.commands.clone.record import CloneCondition
from wal_pipeline.commands.clone.states import clone_states
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.clone_records import NOW, clone_record


class Scene:
    """A folder for clones, and a clock that is set."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clones"
        make_clone_root(self.root)
        self.now = NOW
        self.state = folder / "state"
        self.ender = CloneEnder(self.root, "main", self.clock, AuditLog(self.state, self.clock))

    def clock(self) -> datetime:
        """Return the moment that is set."""
        return self.now

    def clone(self, name: str = "shop", *, finished: bool = True) -> CloneFolder:
        """Make a clone without a server."""
        folder = CloneFolder(self.root, name)
        with folder.made():
            folder.pgdata(1).mkdir(parents=True)
            if finished:
                folder.write(clone_record(name))
        return folder

    def audited(self) -> list[tuple[str, str]]:
        """Return the result and the clone of each line of the audit log."""
        lines = (self.state / FILE_NAME).read_text().splitlines() if (self.state / FILE_NAME).exists() else []
        return [(one["result"], one["name"]) for one in map(json.loads, lines)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_clone_with_a_keeper_is_left_alone(scene: Scene) -> None:
    """As long as its time is not over: it stays, also where its server is down, so that its log can be read."""
    folder = scene.clone()
    with keeping(folder) as ours:
        assert ours
        assert scene.ender.clear() == ()
        assert not scene.ender.end_if_over("shop")
    [state] = clone_states(scene.root)
    assert (state.name, state.state) == ("shop", CloneCondition.DOWN)


def test_a_clone_whose_time_is_over_goes(scene: Scene) -> None:
    """Whoever looks first ends it, also where its keeper lives and is slow."""
    folder = scene.clone()
    scene.now = NOW + timedelta(hours=2)
    with keeping(folder):
        assert scene.ender.clear() == ("clone 'shop' was over since 2026-11-29 20:00:00+00:00: it is removed",)
    assert clone_states(scene.root) == ()
    assert scene.audited() == [("ended", "shop")]


def test_what_a_restart_of_the_machine_left_goes(scene: Scene) -> None:
    """Neither server nor keeper: nothing would ever end it."""
    scene.clone()
    assert scene.ender.clear() == ("clone 'shop' had neither server nor keeper any more and is removed",)
    assert scene.audited() == [("removed", "shop")]


def test_what_a_killed_command_left_goes(scene: Scene) -> None:
    """A clone without a record was never finished; one that a living command makes is locked, and stays."""
    scene.clone("left", finished=False)
    made = CloneFolder(scene.root, "made")
    with made.made():
        assert scene.ender.clear() == ("clone 'left' was never finished and is removed",)
        assert [(one.name, one.state) for one in clone_states(scene.root)] == [("made", CloneCondition.BUSY)]


def test_what_cannot_be_read_stays_until_a_person_says_so(scene: Scene) -> None:
    """A record of another version may be of a clone that is in use."""
    folder = scene.clone()
    (folder.path / "clone.json").write_text("{}")
    [words] = scene.ender.clear()
    assert "is not a clone's record" in words
    [state] = clone_states(scene.root)
    assert state.state is CloneCondition.UNREADABLE
    assert scene.ender.stop("shop").name == "shop"
    assert clone_states(scene.root) == ()


def test_a_clone_that_is_stopped_twice(scene: Scene) -> None:
    """The second time there is none; a folder that was put there by somebody else is none either."""
    scene.clone()
    scene.ender.stop("shop")
    (scene.root / "shop").mkdir()
    with pytest.raises(RestoreError) as caught:
        scene.ender.stop("shop")
    assert caught.value.message == "there is no clone 'shop'"
    assert scene.audited() == [("stopped", "shop")]


def test_a_keeper_is_told_by_the_kernel(scene: Scene) -> None:
    """No number is compared: the file of a dead keeper is not a keeper."""
    folder = scene.clone()
    assert not is_kept(folder)
    with keeping(folder) as ours:
        assert ours
        assert is_kept(folder)
        with keeping(folder) as second:
            assert not second
    assert (folder.path / "keeper.lock").read_text().strip()
    assert not is_kept(folder)
    assert (folder.path / MARK).exists()
