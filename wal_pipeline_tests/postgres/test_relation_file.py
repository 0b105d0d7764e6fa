"""Names of relation files are read as PostgreSQL's reinit.c reads them."""

import pytest

from wal_pipeline.postgres.relation_file import (
    RelationFile,
    file_oid,
    is_temporary_relation,
    parse_relation_file,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("16384", RelationFile(16384, "main", 0)),
        ("16384.1", RelationFile(16384, "main", 1)),
        ("16384.131", RelationFile(16384, "main", 131)),
        ("1_fsm", RelationFile(1, "fsm", 0)),
        ("4294967295_vm.2", RelationFile(4294967295, "vm", 2)),
        ("16384_init", RelationFile(16384, "init", 0)),
    ],
)
def test_a_relation_files_name_is_read(name: str, expected: RelationFile) -> None:
    """Number, fork and segment."""
    assert parse_relation_file(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "0",
            "016384",
            "4294967296",
            "99999999999",
            "16384_main",
            "16384.0",
            "16384.01",
            "16384.",
            "16384_fsm_vm",
        ),
        *("t3_16384", "pg_filenode.map", "PG_VERSION", "pg_internal.init", "16384\n", "٣", "16384.1.2"),
    ],
)
def test_another_name_is_no_relations(name: str) -> None:
    """Zeros in front and numbers that are no oid are none either."""
    assert parse_relation_file(name) is None


def test_a_temporary_relations_name_is_known() -> None:
    """It has the number of its backend in front."""
    assert all(map(is_temporary_relation, ("t3_16384", "t12_1_fsm", "t3_16384_vm.1", "t3_16384.2")))
    assert not any(map(is_temporary_relation, ("t_1", "t3_", "t3_16384x", "3_16384", "t3_16384_main", "total")))


def test_an_oid_is_a_number_without_zeros_in_front() -> None:
    """Other folders of pg_tblspc are no tablespaces."""
    assert file_oid("16390") == 16390
    assert [file_oid(name) for name in ("0", "016390", "pgsql_tmp", "4294967296", "")] == [None] * 5
