"""Which folders a restore may fill, and which --force empties."""

import io
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wal_pipeline.commands.restore.checks import TablespaceMove
from wal_pipeline.commands.restore.folders import check_folders
from wal_pipeline.commands.restore.perform import RestoreCommand, perform_restore
from wal_pipeline.commands.restore.places.workspace import left_by_restore
from wal_pipeline.commands.restore.prepare import RestoreRequest
from wal_pipeline.errors import RestoreError
from wal_pipeline.stores.base import Body
from wal_pipeline_tests.support.archive_scene import folder_store
from wal_pipeline_tests.support.manifests import LAYOUT
from wal_pipeline_tests.support.tars import forge, member, volume

OID = 16384


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A tablespace's folder that is in use, with a file system's own folder beside it."""
    folder = tmp_path / "space"
    for name in ("PG_18_202506291", "lost+found"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A stopped cluster's data directory."""
    (tmp_path / "old/pg_tblspc").mkdir(parents=True)
    (tmp_path / "old/PG_VERSION").write_text("18\n")
    return tmp_path / "old"


def move_to(folder: Path) -> tuple[TablespaceMove, ...]:
    """Return the one tablespace of a base backup, which goes to ``folder``."""
    return (TablespaceMove(OID, Path("/srv/space"), folder),)


def test_force_empties_the_replaced_clusters_tablespace(old: Path, space: Path) -> None:
    """What the replaced data directory links to is its own, under whatever oid it had there."""
    (old / "pg_tblspc/99").symlink_to(space)
    assert check_folders(old, move_to(space), force=True) == (old, space)
    with pytest.raises(RestoreError, match="old' is not empty"):
        check_folders(old, move_to(space), force=False)


def test_force_empties_no_tablespace_of_another_cluster(old: Path, space: Path, tmp_path: Path) -> None:
    """A running server may use it, wherever that server's data directory is: another folder has to be given."""
    (old / "pg_tblspc/99").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RestoreError) as caught:
        check_folders(old, move_to(space), force=True)
    assert caught.value.message == (
        f"the tablespace folder '{space}' is not empty and not of the cluster that is replaced: "
        "another server may use it"
    )
    assert caught.value.hint == f"Give it a new folder: --tablespace-map {OID}=/new/folder"


@pytest.mark.parametrize("force", [True, False])
def test_a_new_data_directory_owns_no_tablespace(tmp_path: Path, space: Path, force: bool) -> None:
    """A copy beside the original never takes the original's tablespaces, and --force is not advised."""
    with pytest.raises(RestoreError) as caught:
        check_folders(tmp_path / "new", move_to(space), force=force)
    assert "another server may use it" in caught.value.message
    assert "--force" not in str(caught.value.hint)


def test_empty_folders_are_filled(tmp_path: Path, space: Path) -> None:
    """Nothing has to be removed from a folder that is empty, missing, or a fresh file system."""
    (space / "PG_18_202506291").rmdir()
    assert check_folders(tmp_path / "new", move_to(space), force=False) == ()
    assert check_folders(tmp_path / "new", move_to(tmp_path / "none"), force=True) == ()


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid(), 1], ids=["ours", "parent", "first"])
def test_a_postmaster_pid_of_the_dead_does_not_stop_a_restore(old: Path, pid: int) -> None:
    """Its number is another process's now, such as our own: PostgreSQL starts with such a file too."""
    (old / "postmaster.pid").write_text(f"{pid}\n{old}\n")
    assert check_folders(old, (), force=True) == (old,)


@pytest.mark.parametrize("force", [True, False])
def test_the_hints_do_not_send_a_person_in_a_circle(tmp_path: Path, force: bool) -> None:
    """A folder without a cluster is refused in both cases, and --force is advised in neither."""
    (tmp_path / "base").mkdir()
    with pytest.raises(RestoreError) as caught:
        check_folders(tmp_path, (), force=force)
    assert caught.value.hint == (
        "It holds 'base', which is not of a cluster, and --force removes only what was one: "
        "restore into another folder, or remove these files yourself."
    )


def test_a_failed_restore_can_be_tried_again(tmp_path: Path) -> None:
    """Its marks tell that what lies in both folders is its own, with or without --force."""
    store = folder_store("r2", tmp_path / "store")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as made:
        made.addfile(member("PG_18_202506291", tarfile.DIRTYPE))
    tar = buffer.getvalue()
    manifest = forge({str(OID): tar, "base": tar})
    store.put_if_absent(LAYOUT.base_key(manifest.backup_id, volume(str(OID))), Body.of(tar), {})  # no base tar
    moves = move_to(tmp_path / "space")
    planned = SimpleNamespace(backup=SimpleNamespace(backup_id=manifest.backup_id), stores=("r2",))
    prepared: Any = SimpleNamespace(
        filled_elsewhere=(tmp_path / "space",),
        request=RestoreRequest(tmp_path / "new"),
        plan=SimpleNamespace(chain=(planned,), tails=()),
        chain=(manifest,),
        moves=moves,
        emptied=(),
        stores=(store,),
        silent=(),
        layout=LAYOUT,
        identities=(),
        plan_seconds=0.0,
        wal_folder=None,
        is_single=True,
        index=None,
        chosen=None,
    )
    with pytest.raises(RestoreError, match="could not be had from any store"):
        perform_restore(prepared, RestoreCommand(("false",)))
    assert (tmp_path / "space/PG_18_202506291").is_dir()
    for force in (True, False):
        assert check_folders(tmp_path / "new", moves, force=force) == (tmp_path / "space",)
    assert left_by_restore(tmp_path / "new")
    with pytest.raises(RestoreError, match="another server may use it"):
        check_folders(tmp_path / "other", moves, force=True)
