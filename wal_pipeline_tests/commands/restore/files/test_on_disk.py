"""Each file of a base backup has one place, in the data directory or in a tablespace's folder."""

from pathlib import Path

import pytest

from wal_pipeline.commands.restore.files.on_disk import FilePlaces
from wal_pipeline.commands.restore.untar import HELD_BACK
from wal_pipeline.errors import RestoreError

PLACES = FilePlaces(Path("/data"), {16390: Path("/space")})


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("base/5/16384", "/data/base/5/16384"),
        ("global/pg_control", f"/data/{HELD_BACK}"),
        ("pg_tblspc/16390/PG_18_1/5/7", "/space/PG_18_1/5/7"),
        ("pg_tblspc/16390", "/space"),
        ("pg_tblspc/16391/PG_18_1/5/7", "/data/pg_tblspc/16391/PG_18_1/5/7"),
        ("pg_tblspc/٣/x", "/data/pg_tblspc/٣/x"),
        ("pg_tblspc", "/data/pg_tblspc"),
        ("./global//pg_control", f"/data/{HELD_BACK}"),
    ],
)
def test_where_a_file_lies(name: str, path: str) -> None:
    """Tablespaces are reached without their links, and pg_control is held back."""
    assert PLACES.path(name) == path


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "pg_tblspc/16390/../../x", "a\0b"])
def test_no_file_lies_elsewhere(name: str) -> None:
    """Whatever a base backup says."""
    with pytest.raises(RestoreError, match="expected one below the data directory"):
        PLACES.path(name)


def test_the_roots_have_the_beginnings_of_their_files_names() -> None:
    """The data directory's is empty."""
    assert PLACES.roots == (("", Path("/data")), ("pg_tblspc/16390/", Path("/space")))
