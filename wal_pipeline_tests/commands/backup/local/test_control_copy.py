"""The control file is read whole, or read again; its checksum is found in every version's layout."""

import struct
from pathlib import Path

import google_crc32c
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.backup.local.control_copy import copy_control_file, is_right
from wal_pipeline.errors import BaseBackupError


@pytest.fixture(scope="module")
def control(postgres_version: PostgresInstall) -> bytes:
    """The control file of a new cluster of each version."""
    cluster = PostgresCluster(postgres_version).initdb()
    try:
        return (cluster.pgdata / "global" / "pg_control").read_bytes()
    finally:
        cluster.remove()


@pytest.mark.integration
def test_a_changed_byte_anywhere_is_found(control: bytes) -> None:
    """Each byte of the data and of the checksum counts; the zeros behind it too."""
    assert is_right(control)
    for place in [*range(0, len(control.rstrip(b"\0")), 7), 4000]:
        torn = bytearray(control)
        torn[place] ^= 0x40
        assert not is_right(bytes(torn)), place


@pytest.mark.parametrize("checksum_ends", [b"", b"\0", b"\0\0"])
def test_a_checksum_that_ends_with_zeros_is_found(checksum_ends: bytes) -> None:
    """Such a checksum looks shorter than it is."""
    number = 0
    while True:
        data = struct.pack("<QQ", 7, number) + bytes(range(1, 241)) + bytes(8)
        checksum = struct.pack("=I", google_crc32c.value(data))
        if checksum.endswith(checksum_ends):
            break
        number += 1
    assert is_right((data + checksum).ljust(8192, b"\0"))


@pytest.mark.integration
def test_a_torn_file_is_read_again(control: bytes, tmp_path: Path) -> None:
    """The server ends its write while we wait; the copy is the whole one."""
    path = tmp_path / "global" / "pg_control"
    path.parent.mkdir()
    torn = control[:100] + b"\xff" + control[101:]
    path.write_bytes(torn)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            path.write_bytes(control)

    copy = copy_control_file(tmp_path, pause)
    assert (copy.data, len(pauses), copy.modified_ns) == (control, 3, path.stat().st_mtime_ns)
    path.write_bytes(torn)
    with pytest.raises(BaseBackupError, match=r"pg_control' has a wrong checksum, 100 times in a row"):
        copy_control_file(tmp_path, lambda _: None)
