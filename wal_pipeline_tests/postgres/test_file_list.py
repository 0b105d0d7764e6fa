"""The list of a base backup's files is PostgreSQL's own: pg_verifybackup proves a data directory with it."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, give_to_postgres
from testbed.processes import ServerError
from wal_pipeline.postgres.file_list import FILE_LIST_NAME, FileListEntry, NeededWal, file_list_lines
from wal_pipeline.wal.lsn import Lsn

WAL = NeededWal(1, Lsn.parse("0/2000028"), Lsn.parse("16/B374D848"))
SMALL = FileListEntry("base/5/16384", 9, 1_764_450_000_999_999_999, "e3069283")
EXPECTED_15 = """{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "base/5/16384", "Size": 9, "Last-Modified": "2025-11-29 21:00:00 GMT", "Checksum-Algorithm": "CRC32C", \
"Checksum": "839206e3" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "16/B374D848" }
],
"Manifest-Checksum": "b9d5"""


def listed(*files: FileListEntry, major: int = 18) -> bytes:
    return b"".join(file_list_lines(files, WAL, major=major, system_identifier=2**63 + 1))


def test_the_list_is_written_as_postgresql_writes_it() -> None:
    """Up to version 16 without the system identifier; the checksum of a file is shown as it lies in memory."""
    old, new = listed(SMALL, major=16).decode(), listed(SMALL, major=17).decode()
    assert old.rpartition('"Manifest-Checksum"')[0] == EXPECTED_15.rpartition('"Manifest-Checksum"')[0]
    assert new.splitlines()[:2] == [
        '{ "PostgreSQL-Backup-Manifest-Version": 2,',
        '"System-Identifier": 9223372036854775809,',
    ]
    assert new.splitlines()[2:-1] == old.splitlines()[1:-1]


def test_any_list_is_json() -> None:
    """Also one without files, and with names that JSON must escape."""
    names = ["a\nb", 'quote"', "back\\slash", "tab\t\x01", "é", "naïve/\u2028"]
    read = json.loads(listed(*[FileListEntry(name, 0, 0, "00000000") for name in names]))
    assert [file["Path"] for file in read["Files"]] == names
    assert json.loads(listed())["Files"] == []


def test_a_name_that_is_not_utf8_is_written_in_hex() -> None:
    """It comes from the file system as Python's surrogate escapes."""
    (file,) = json.loads(listed(FileListEntry(os.fsdecode(b"base/\xff\xe9"), 0, 0, "00000000")))["Files"]
    assert file["Encoded-Path"] == "626173652fffe9"
    assert "Path" not in file


def test_a_file_of_before_1970_has_a_time() -> None:
    """A wrong clock or an unpacked archive may have left it so."""
    (file,) = json.loads(listed(FileListEntry("a", 0, -1, "00000000")))["Files"]
    assert file["Last-Modified"] == "1969-12-31 23:59:59 GMT"


@pytest.fixture
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A cluster that was never started, with files whose names need care."""
    made = PostgresCluster(postgres_version).initdb()
    for name in (b"latin1-\xe9", b'a "quoted"\nname', "naïve".encode()):
        Path(os.fsdecode(os.fsencode(made.pgdata) + b"/" + name)).write_bytes(name)
    give_to_postgres(made.pgdata)
    yield made
    made.remove()


def _list_of(pgdata: Path) -> Iterator[FileListEntry]:
    for path in sorted(pgdata.rglob("*")):
        if path.is_file():
            data, status = path.read_bytes(), path.stat()
            checksum = f"{google_crc32c.value(data):08x}"
            yield FileListEntry(str(path.relative_to(pgdata)), status.st_size, status.st_mtime_ns, checksum)


def _verify(cluster: PostgresCluster) -> str:
    return cluster.run("pg_verifybackup", "--no-parse-wal", "--exit-on-error", str(cluster.pgdata))


@pytest.mark.integration
@pytest.mark.each_version
def test_pg_verifybackup_accepts_the_list(cluster: PostgresCluster) -> None:
    """Also with names that are not UTF-8; a byte that differs and a list that was changed are found."""
    major, pgdata = cluster.install.version, cluster.pgdata
    shutil.rmtree(pgdata / "pg_wal")
    (pgdata / "pg_wal").mkdir()
    identifier = int(cluster.system_identifier)
    lines = file_list_lines(_list_of(pgdata), WAL, major=major, system_identifier=identifier)
    (pgdata / FILE_LIST_NAME).write_bytes(b"".join(lines))
    give_to_postgres(pgdata)
    assert "successfully verified" in _verify(cluster)

    changed = pgdata / "global" / "1262"
    data = changed.read_bytes()
    changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ServerError, match='checksum mismatch for file "global/1262"'):
        _verify(cluster)
    changed.write_bytes(data)

    text = (pgdata / FILE_LIST_NAME).read_bytes()
    (pgdata / FILE_LIST_NAME).write_bytes(text.replace(b'"Timeline": 1,', b'"Timeline": 2,'))
    with pytest.raises(ServerError, match="manifest checksum mismatch"):
        _verify(cluster)
