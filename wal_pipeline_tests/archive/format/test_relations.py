"""A list of relations is read as it was written, and refused where a field is not as it should be."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.relations import (
    KnownRelations,
    ListedDatabase,
    ListedRelation,
    RelationKind,
    RelationList,
)
from wal_pipeline.errors import RelationListError
from wal_pipeline_tests.support.relation_lists import SHOP, relation, relation_list

CLOSED = ListedDatabase(
    5, "template0", is_template=True, allows_connections=False, tablespace_oid=1663, unread="closed"
)
LIST = relation_list(
    [
        relation("pg_authid", 1260, schema="pg_catalog", database_oid=0),
        relation('Żółw "1"', 16400),
        relation("żółw_pkey", 16401, kind=RelationKind.INDEX, table_oid=16400),
    ],
    databases=[SHOP, CLOSED],
)
NAMES = st.text(min_size=1, max_size=20)
OIDS = st.integers(0, 2**32 - 1)


def test_it_is_read_as_it_was_written() -> None:
    """Also a database that could not be read, a shared relation and names that need quotes."""
    assert RelationList.from_json(LIST.to_json()) == LIST


@given(st.lists(st.tuples(OIDS, OIDS, OIDS, NAMES, NAMES, st.sampled_from(RelationKind), st.none() | OIDS), max_size=5))
def test_any_name_and_number_comes_back(rows: list[tuple[Any, ...]]) -> None:
    """Names of any text, numbers up to the largest OID."""
    listed = relation_list([ListedRelation(SHOP.oid, *row) for row in rows])
    assert RelationList.from_json(listed.to_json()) == listed


def test_one_relation_is_one_line() -> None:
    """A person finds a table with grep, and any JSON tool reads the whole."""
    data = LIST.to_json()
    lines = [line for line in data.decode("ascii").splitlines() if "_pkey" in line]
    assert lines == [r'[16401, 16401, 0, "public", "\u017c\u00f3\u0142w_pkey", "index", 16400]']
    assert [one["name"] for one in json.loads(data)["databases"]] == ["shop", "template0"]


def test_relations_that_stayed_are_one_object_in_many_lists() -> None:
    """Lists of a month take little more memory than one."""
    known: KnownRelations = {}
    first = RelationList.from_json(LIST.to_json(), known=known)
    second = RelationList.from_json(replace(LIST, timeline=2).to_json(), known=known)
    assert all(one is other for one, other in zip(first.relations, second.relations, strict=True))


def _with(**changes: object) -> bytes:
    return json.dumps({**json.loads(LIST.to_json()), **changes}).encode()


def _with_row(**changes: object) -> bytes:
    values = json.loads(LIST.to_json())
    row = values["databases"][0]["relations"][0]
    for name, value in changes.items():
        row[values["columns"].index(name)] = value
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_with(version=2), "expected the format ('wal-pipeline relations', 1), found ('wal-pipeline relations', 2)"),
        (_with(timeline="1"), "list: 'timeline' is str, expected int"),
        (_with(taken_at="2026-11-01T03:00:00"), "'taken_at' is '2026-11-01T03:00:00', expected a time zone with it"),
        (_with(taken_at="today"), "'taken_at' is 'today', expected a moment in ISO 8601"),
        (_with(lsn="zero"), "'lsn': 'zero' is not an LSN"),
        (_with(system_identifier="-1"), "'system_identifier' is '-1', expected digits"),
        (_with(columns=["oid"]), "'columns' is ['oid'], expected ['oid', 'file_node', "),
        (_with(databases=[{"oid": 1}]), "database: expected the keys ["),
        (_with(shared_relations=[7]), "relation 7: expected the columns oid, file_node, "),
        (_with(shared_relations=[[[], 2]]), "relation [[], 2]: expected the columns oid, file_node, "),
        (_with(shared_relations=[[1]]), "relation [1]: expected the columns oid, file_node, "),
        (_with_row(kind="view"), "'kind' is 'view', expected one of table, partitioned table, index, "),
        (_with_row(file_node=2**32), "'file_node' is 4294967296, expected a number below 2**32"),
        (_with_row(oid=True), "'oid' is True, expected a number below 2**32"),
        (_with_row(name=7), "'name' is 7, expected text"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"\x00", "Expecting value"),
    ],
)
def test_a_field_that_is_not_as_it_should_be_is_named(data: bytes, reason: str) -> None:
    """No name is guessed: a wrong one would send a person to the wrong table."""
    with pytest.raises(RelationListError) as caught:
        RelationList.from_json(data)
    assert caught.value.message.startswith("a list of relations cannot be used: ")
    assert reason in caught.value.message
