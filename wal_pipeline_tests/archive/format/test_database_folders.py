"""A file's database is read from its folder; a file of no database is of none, whatever it is called."""

import pytest

from wal_pipeline.archive.format.database_folders import database_folder, database_of


@pytest.mark.parametrize(
    ("name", "tar", "folder", "oid"),
    [
        ("base/16385/2619_vm", "base", "base/16385", 16385),
        ("base/16385", "base", "base/16385", 16385),
        ("base/16385/", "base", "base/16385", 16385),
        ("./base/5/INCREMENTAL.1259", "base", "base/5", 5),
        ("pg_tblspc/16400/PG_18_202506291/16385/16390.1", "base", "pg_tblspc/16400/PG_18_202506291/16385", 16385),
        ("PG_15_202209061/16385/PG_VERSION", "16400", "PG_15_202209061/16385", 16385),
    ],
)
def test_a_file_in_a_databases_folder(name: str, tar: str, folder: str, oid: int) -> None:
    """The last folder is the database's oid: in the data directory, in a tablespace's tar, in the manifest's paths."""
    assert database_folder(name, tar) == (folder, oid)
    assert database_of(name, tar) == oid


@pytest.mark.parametrize(
    ("name", "tar"),
    [
        ("global/1262", "base"),
        ("base", "base"),
        ("base/", "base"),
        ("base/pgsql_tmp/x", "base"),
        ("base/16385x/1", "base"),
        ("base/0/1", "base"),
        ("database/16385/1", "base"),
        ("PG_15_202209061/16385/1", "base"),
        ("PG_15_202209061", "16400"),
        ("PG_15_202209061/pgsql_tmp/1", "16400"),
        ("base/16385/1", "16400"),
        ("pg_tblspc/16400", "base"),
        ("x/base/16385/1", "base"),
    ],
)
def test_a_file_of_no_database(name: str, tar: str) -> None:
    """What is not plainly in a database's folder counts as everybody's."""
    assert database_of(name, tar) is None
