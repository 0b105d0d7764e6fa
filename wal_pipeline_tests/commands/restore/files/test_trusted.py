"""A CRC-32C proves the content of relations' files, and of no file that ends with its own."""

import os
import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.commands.restore.files.trusted import is_relation_file

RELATIONS = [
    "base/5/16384",
    "base/5/16384.1",
    "base/5/16384_fsm",
    "base/5/16384_vm.12",
    "base/1/2619_init",
    "global/1262",
    "global/1262_fsm",
    "pg_tblspc/16390/PG_18_202506291/5/16384",
]
OTHERS = [
    "global/pg_control",
    "global/pg_filenode.map",
    "base/5/pg_filenode.map",
    "base/5/PG_VERSION",
    "base/5/pg_internal.init",
    "pg_tblspc/16390/PG_18_202506291/5/pg_filenode.map",
    "pg_tblspc/16390/16384",
    "pg_xact/1000",
    "pg_multixact/members/1000",
    "pg_twophase/00000000000002E1",
    "pg_logical/replorigin_checkpoint",
    "base/5/deeper/16384",
    "base/16384",
    "base/pgsql_tmp/16384",
    "base/5/t3_16384",
    "16384",
    "PG_VERSION",
    "backup_manifest",
]


@pytest.mark.parametrize("name", RELATIONS)
def test_files_of_relations(name: str) -> None:
    """All forks and segments, in each kind of folder."""
    assert is_relation_file(name)


@pytest.mark.parametrize("name", OTHERS)
def test_all_other_files(name: str) -> None:
    """Also those whose names look like a relation's."""
    assert not is_relation_file(name)


@given(st.binary(min_size=8, max_size=200), st.integers(0, 100))
def test_why_the_others_are_not_kept(data: bytes, zeros: int) -> None:
    """Whatever a file holds that ends with its own CRC-32C, such as pg_control: the whole has always the same one."""

    def stored(content: bytes) -> int:
        own = struct.pack("<I", google_crc32c.value(content))
        whole: int = google_crc32c.value(content + own + bytes(zeros))
        return whole

    assert stored(data) == stored(os.urandom(len(data)))
