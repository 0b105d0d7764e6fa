"""The system identifier, the version and the segment size of a data directory are read from its files."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.control_file import read_control_file, read_server_major, read_wal_segment_size


def write_control_file(pgdata: Path, content: bytes) -> Path:
    (pgdata / "global").mkdir(parents=True, exist_ok=True)
    path = pgdata / "global" / "pg_control"
    path.write_bytes(content)
    return path


@pytest.mark.integration
def test_a_real_data_folder(postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster]) -> None:
    """System identifier, version and segment size are those that PostgreSQL's own programs show."""
    cluster = make_cluster(postgres_version, wal_segment_size_mb=1)
    control = read_control_file(cluster.pgdata)
    assert str(control.system_identifier) == cluster.system_identifier
    assert control.control_version == {15: 1300, 18: 1800}[postgres_version.version]
    assert read_server_major(cluster.pgdata) == postgres_version.version
    binaries = Binaries(postgres_version.bin_folder, postgres_version.version)
    assert read_wal_segment_size(cluster.pgdata, binaries) == 1 << 20


def test_a_folder_without_control_file(tmp_path: Path) -> None:
    """A folder that is no data directory is named, with what to do."""
    with pytest.raises(PostgresError) as caught:
        read_control_file(tmp_path)
    assert caught.value.message == f"'{tmp_path}/global/pg_control' cannot be read: No such file or directory"
    assert caught.value.hint == "Set PGDATA to the cluster's data directory, and run as a user who may read it."


def test_half_a_control_file(tmp_path: Path) -> None:
    """A control file that was cut is not trusted."""
    path = write_control_file(tmp_path, struct.pack("<QII", 7, 1800, 202506291))
    with pytest.raises(PostgresError) as caught:
        read_control_file(tmp_path)
    assert caught.value.message == f"'{path}' has 16 bytes, expected 8192"


@pytest.mark.parametrize(("identifier", "version"), [(0, 1800), (7, 0), (7, 942), (7, 0x07080000)])
def test_other_content(tmp_path: Path, identifier: int, version: int) -> None:
    """A file that is not a control file of a supported release is refused with what it holds."""
    path = write_control_file(tmp_path, struct.pack("<QII", identifier, version, 0).ljust(8192, b"\0"))
    with pytest.raises(PostgresError) as caught:
        read_control_file(tmp_path)
    assert caught.value.message == (
        f"'{path}' is not a control file of PostgreSQL 13 or newer: "
        f"it has the system identifier {identifier} and the version {version}"
    )


def test_the_version_file(tmp_path: Path) -> None:
    """PG_VERSION is read, and refused by its words where it holds anything else."""
    (tmp_path / "PG_VERSION").write_text("18\n")
    assert read_server_major(tmp_path) == 18
    (tmp_path / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(PostgresError) as caught:
        read_server_major(tmp_path)
    assert caught.value.message == f"'{tmp_path}/PG_VERSION' has '9.6', expected a major version such as 18"
