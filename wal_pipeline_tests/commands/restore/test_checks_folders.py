"""Which folders a restore cannot write, and on which disks it counts."""

import os
from pathlib import Path

import pytest

from wal_pipeline.commands.restore.checks import check_writable, disk_needs
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.mounts import mounted
from wal_pipeline_tests.support.nobody import NOBODY, as_nobody, nobodys_folder


def test_a_folder_that_cannot_be_made_is_told_before_the_download() -> None:
    """As PostgreSQL's user below root's folder; and one that can be is passed."""
    with nobodys_folder("data") as data:
        told = as_nobody(lambda: check_writable(data.parent / "new", ()))
        assert told.startswith(f"user 'nobody' cannot write in '{data.parent}'")
        assert "restore as root" in told
        assert as_nobody(lambda: check_writable(data / "new", (data / "space",))) == ""
        assert as_nobody(lambda: check_writable(data, (data.parent / "space",))).startswith("user 'nobody' cannot")


def test_the_data_directory_of_another_user_is_told(tmp_path: Path) -> None:
    """PostgreSQL would not start in it."""
    with nobodys_folder("data") as data:
        os.chown(data, NOBODY + 1, 0)
        data.chmod(0o777)
        told = as_nobody(lambda: check_writable(data, ()))
        assert told.startswith(f"the data directory '{data}' is of user ")


def test_each_need_is_counted_on_its_own_disk(tmp_path: Path) -> None:
    """The data directory, what is downloaded, and the WAL; needs on one disk have the data directory's name."""
    chain = (make_manifest(),)
    with mounted(tmp_path / "wal", 50) as wal:
        needs = disk_needs(chain, tmp_path / "new", (), work_place=tmp_path / "work", wal_place=wal)
    assert [need.folder for need in needs] == [tmp_path / "new", wal]
    assert needs[1].needed_bytes == 1 << 30
    assert needs[1].free_bytes <= 50 << 20
    assert needs[0].needed_bytes == chain[0].size_bytes + sum(item.size_bytes for item in chain[0].objects)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_removed_counts_once_as_free(tmp_path: Path, is_there: bool) -> None:
    """The data directory is named for its own need, for the downloads and for the WAL."""
    (tmp_path / "new").mkdir()
    if is_there:
        (tmp_path / "new/old").write_bytes(os.urandom(1 << 20))
    pgdata = tmp_path / "new"
    [need] = disk_needs((make_manifest(),), pgdata, (), work_place=pgdata, wal_place=pgdata)
    used = sum(path.stat().st_blocks * 512 for path in pgdata.rglob("*"))
    assert abs(need.free_bytes - used - os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize) < 200 << 20
