"""Whether files may lie beside a folder."""

from pathlib import Path

from wal_pipeline.host.mounts import has_room_beside, is_writable, nearest, removable
from wal_pipeline_tests.support.mounts import mounted
from wal_pipeline_tests.support.nobody import as_nobody, nobodys_folder


def test_nothing_is_put_beside_a_mount_point(tmp_path: Path) -> None:
    """It is another disk, also where we may write there, and where a link leads to it."""
    assert has_room_beside(tmp_path / "plain")
    with mounted(tmp_path / "disk", 1) as disk:
        (tmp_path / "link").symlink_to(disk)
        assert not has_room_beside(disk)
        assert not has_room_beside(tmp_path / "link")
        assert has_room_beside(disk / "pgdata")
        assert removable(disk, "drill") == disk / "drill"
        assert removable(disk / "own", "drill") == disk / "own"


def test_a_folder_that_is_to_be_made_is_judged_by_the_one_above() -> None:
    """By our own rights there, and nothing is written."""

    def look() -> None:
        raise RuntimeError(str([is_writable(path) for path in (folder, folder / "a/b", folder.parent / "new")]))

    with nobodys_folder("data") as folder:
        assert as_nobody(look) == "[True, True, False]"
        assert nearest(folder / "a/b") == folder
        assert list(folder.iterdir()) == []
