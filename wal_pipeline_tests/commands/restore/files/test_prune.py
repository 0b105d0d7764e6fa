"""What a base backup does not have goes from a cluster's folders; nothing outside them is touched."""

import os
from pathlib import Path

import pytest

from wal_pipeline.commands.restore.files.on_disk import FilePlaces
from wal_pipeline.commands.restore.files.prune import parents_of, prune
from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL
from wal_pipeline.errors import RestoreError


def make(folder: Path, *names: str) -> Path:
    """Make files that hold their own names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def names(folder: Path) -> set[str]:
    """All that lies in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_only_the_named_files_and_folders_stay(tmp_path: Path) -> None:
    """pg_control stays under the name by which it is held back, and our marks stay."""
    pgdata = make(
        tmp_path / "pgdata",
        *(
            "base/5/1",
            "base/5/2",
            "base/6/1",
            "pg_wal/000000010000000000000001",
            PG_CONTROL,
            HELD_BACK,
            "postgresql.conf",
        ),
        *(".wal-pipeline-restore/mark", "lost+found/x"),
    )
    (pgdata / "empty").mkdir()
    prune(FilePlaces(pgdata), ["base/5/1", PG_CONTROL, "absent/file"], ["pg_wal/archive_status", "empty"])
    assert names(pgdata) == {
        *("base", "base/5", "base/5/1", "global", HELD_BACK, "pg_wal", "empty"),
        *(".wal-pipeline-restore", ".wal-pipeline-restore/mark", "lost+found", "lost+found/x"),
    }


def test_links_go_and_what_they_point_to_stays(tmp_path: Path) -> None:
    """Also a link in the place of a wanted file or folder. The restore's own link of pg_wal stays."""
    outside = make(tmp_path / "outside", "file", "folder/file", "wal/000000010000000000000001")
    pgdata = make(tmp_path / "pgdata", "base/5/2")
    (pgdata / "base/5/1").symlink_to(outside / "file")
    (pgdata / "base/7").symlink_to(outside / "folder")
    (pgdata / "pg_wal").symlink_to(outside / "wal")
    prune(FilePlaces(pgdata), ["base/5/1", "base/7/file"], ["pg_wal"])
    assert names(pgdata) == {"base", "base/5", "pg_wal"}
    assert names(outside) == {"file", "folder", "folder/file", "wal", "wal/000000010000000000000001"}


def test_a_file_with_a_second_name_goes(tmp_path: Path) -> None:
    """Writing into it would change the other one too."""
    pgdata = make(tmp_path / "pgdata", "base/5/1")
    os.link(pgdata / "base/5/1", tmp_path / "copy")
    prune(FilePlaces(pgdata), ["base/5/1"])
    assert names(pgdata) == {"base", "base/5"}
    assert (tmp_path / "copy").read_text() == "base/5/1"


def test_what_is_of_another_kind_goes(tmp_path: Path) -> None:
    """A folder in a file's place, a file in a folder's, and what is neither."""
    pgdata = make(tmp_path / "pgdata", "base/5/1/x", "base/6")
    os.mkfifo(pgdata / "base/5/2")
    prune(FilePlaces(pgdata), ["base/5/1", "base/5/2", "base/6/1"])
    assert names(pgdata) == {"base", "base/5"}


def test_tablespaces_are_emptied_where_they_lie(tmp_path: Path) -> None:
    """Not through their links, which go; a folder in a link's place goes too, with what is in it."""
    pgdata, space = make(tmp_path / "pgdata", "pg_tblspc/17/PG_18_1/5/1"), make(tmp_path / "space", "PG_18_1/5/1", "x")
    other = make(tmp_path / "other", "PG_18_1/5/1")
    (pgdata / "pg_tblspc/16").symlink_to(other)
    (pgdata / "pg_tblspc/18").symlink_to(other)
    kept = ["pg_tblspc/16/PG_18_1/5/1", "pg_tblspc/17/PG_18_1/5/1"]
    prune(FilePlaces(pgdata, {16: space, 17: tmp_path / "none"}), kept)
    assert names(pgdata) == {"pg_tblspc"}
    assert names(space) == {"PG_18_1", "PG_18_1/5", "PG_18_1/5/1"}
    assert names(other) == {"PG_18_1", "PG_18_1/5", "PG_18_1/5/1"}


def test_what_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is passed over in silence."""
    pgdata = make(tmp_path / "pgdata", "base/5/1")

    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RestoreError) as caught:
        prune(FilePlaces(pgdata), [], ["base/5"])
    assert caught.value.message == f"'{pgdata}/base/5/1' cannot be removed: Operation not permitted"


def test_the_folders_of_a_name() -> None:
    """A folder's own name ends with a slash."""
    assert list(parents_of("base/5/1")) == ["base", "base/5"]
    assert list(parents_of("pg_wal/")) == ["pg_wal"]
    assert list(parents_of("PG_VERSION")) == []
