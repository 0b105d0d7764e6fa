"""How a restore marks and locks its folders, and knows what an earlier one left."""

from pathlib import Path

import pytest

from wal_pipeline.commands.restore.folders import check_folders
from wal_pipeline.commands.restore.places.workspace import (
    WORK_NAME,
    combined,
    empty,
    is_left_for,
    left_by_restore,
    lost_writes,
    move_up,
    workspace,
)
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.mounts import mounted


def names(folder: Path) -> set[str]:
    """Return what lies in a folder."""
    return {path.name for path in folder.iterdir()}


def leave(pgdata: Path, *others: Path) -> None:
    """Begin a restore, and end it without a word as a kill does."""
    with workspace(pgdata) as work:
        work.begin(others)
        (pgdata / "base").mkdir(exist_ok=True)


def test_one_restore_at_a_time(tmp_path: Path) -> None:
    """The second is refused while the first is at work, and nothing is left behind."""
    new = tmp_path / "deep/new"
    with workspace(new):
        with pytest.raises(RestoreError, match="is at work: it holds the lock"), workspace(new):
            pytest.fail("two restores at once")
        with pytest.raises(RestoreError, match="is at work: it holds the lock"):
            check_folders(new, (), force=False)
        with workspace(tmp_path / "other"):
            pass
    with workspace(new):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_restore_that_ended_leaves_no_mark(tmp_path: Path) -> None:
    """From then on the folder is a cluster as any other."""
    pgdata, space = tmp_path / "new", tmp_path / "space"
    with workspace(pgdata) as work:
        work.begin([space])
        assert work.staging.is_dir()
        assert is_left_for(space, pgdata)
        (pgdata / "PG_VERSION").touch()
        work.end([space])
    assert names(pgdata) == {"PG_VERSION"}
    assert names(space) == set()


def test_what_a_killed_restore_left_is_its_own(tmp_path: Path) -> None:
    """With or without --force, whatever was there first: a mark tells, also in a tablespace without a link to it."""
    pgdata, space = tmp_path / "new", tmp_path / "space"
    leave(pgdata, space)
    (space / "PG_18_202506291").mkdir()
    for force in (True, False):
        assert check_folders(pgdata, (), force=force) == (pgdata,)
    assert is_left_for(space, pgdata)
    with workspace(pgdata) as work:
        assert work.was_left
        work.begin([space])


def test_a_server_that_was_started_on_it_is_no_leftover(tmp_path: Path) -> None:
    """Whatever mark stays: what people have written since is not removed without --force."""
    pgdata = tmp_path / "new"
    leave(pgdata)
    (pgdata / "PG_VERSION").touch()
    (pgdata / "postmaster.opts").touch()
    assert not left_by_restore(pgdata)
    with pytest.raises(RestoreError, match="is not empty"):
        check_folders(pgdata, (), force=False)
    assert check_folders(pgdata, (), force=True) == (pgdata,)


def test_what_the_disk_lost_is_told_to_the_next_restore_alone(tmp_path: Path) -> None:
    """The kernel shows lost bytes from memory: a comparison would find them right. Once written anew, they are."""
    pgdata, space = tmp_path / "new", tmp_path / "space"
    with workspace(pgdata) as work:
        work.begin([space])
        work.say_lost_writes()
    assert is_left_for(space, pgdata)
    assert lost_writes(pgdata)
    with workspace(pgdata) as work:
        assert (work.was_left, lost_writes(pgdata)) == (True, True)
        work.begin([space])
    assert not lost_writes(pgdata)
    assert left_by_restore(pgdata)


def test_an_old_cluster_that_a_killed_restore_began_to_empty_is_a_leftover(tmp_path: Path) -> None:
    """The mark counts from the moment on at which the old server's own files go, which are the first."""
    pgdata = tmp_path / "old"
    (pgdata / "base").mkdir(parents=True)
    (pgdata / "postmaster.opts").touch()
    leave(pgdata)
    assert left_by_restore(pgdata)


def test_a_mark_that_is_no_mark_frees_nothing(tmp_path: Path) -> None:
    """An empty one is of a restore that had not begun, a damaged one could be anyone's."""
    (tmp_path / WORK_NAME).mkdir()
    (tmp_path / "precious").touch()
    for content in (b"", b"{", b"[]", b"{}", b'{"pgdata": 5}', b'{"pgdata": "/elsewhere"}'):
        (tmp_path / WORK_NAME / "mark").write_bytes(content)
        with pytest.raises(RestoreError, match="is not empty"):
            check_folders(tmp_path, (), force=False)


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Whoever may write in the data directory has no other file locked, written or removed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "mark").write_text("mine")
    pgdata = tmp_path / "new"
    pgdata.mkdir()
    (pgdata / WORK_NAME).symlink_to(precious)
    with pytest.raises(RestoreError, match="cannot be made"), workspace(pgdata):
        pytest.fail("a link was followed")
    (pgdata / WORK_NAME).unlink()
    (pgdata / WORK_NAME).mkdir()
    (pgdata / WORK_NAME / "mark").symlink_to(precious / "mark")
    with pytest.raises(RestoreError, match="cannot be made"), workspace(pgdata):
        pytest.fail("a link was followed")
    assert (precious / "mark").read_text() == "mine"


def test_a_folder_of_another_restore_is_not_taken(tmp_path: Path) -> None:
    """Two restores with one folder for a tablespace do not mix their files."""
    leave(tmp_path / "one", tmp_path / "space")
    with pytest.raises(RestoreError) as caught:
        leave(tmp_path / "two", tmp_path / "space")
    assert caught.value.message.startswith(f"'{tmp_path / 'space'}' is being filled by a restore into '{tmp_path}/one'")


def test_downloads_can_be_kept_elsewhere(tmp_path: Path) -> None:
    """Two data directories of one name do not share their place there."""
    with (
        workspace(tmp_path / "a/main", tmp_path / "work") as one,
        workspace(tmp_path / "b/main", tmp_path / "work") as two,
    ):
        one.begin([])
        two.begin([])
        assert one.staging.parent == two.staging.parent == tmp_path / "work"
        assert one.staging != two.staging


def test_a_file_systems_own_folder_stays(tmp_path: Path) -> None:
    """It is root's, and neither removed nor content."""
    for name in ("lost+found", WORK_NAME, "base"):
        (tmp_path / name).mkdir()
    empty(tmp_path)
    assert names(tmp_path) == {"lost+found", WORK_NAME}
    assert check_folders(tmp_path, (), force=False) == ()


def test_what_was_put_together_moves_up_through_a_link(tmp_path: Path) -> None:
    """pg_wal may be a link to another disk, and what was there stays there."""
    with mounted(tmp_path / "wal", 1) as wal:
        (tmp_path / "new").mkdir()
        (tmp_path / "new/pg_wal").symlink_to(wal)
        (combined(tmp_path / "new") / "pg_wal/archive_status").mkdir(parents=True)
        (combined(tmp_path / "new") / "PG_VERSION").touch()
        move_up(tmp_path / "new")
        assert names(wal) == {"archive_status", "lost+found"}
    assert names(tmp_path / "new") == {"PG_VERSION", "pg_wal", WORK_NAME}
