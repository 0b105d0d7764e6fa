"""Tests what the asset of the tables that were brought back says."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from wal_pipeline.commands.rescue.result import RescuedTable, RescueResult
from wal_pipeline.orchestration.assets.accident_desk.rescued_tables import rescued_metadata, rescued_sentence

LOADED = RescueResult(
    "shop",
    (RescuedTable("public.orders", 4000, "rescued.orders"), RescuedTable("public.lines", 1, "rescued.lines")),
    {"download": 1.5, "recovery": 2.0, "load": 0.5},
    2**20,
    2**21,
    2**19,
    datetime(2026, 11, 22, 17, 45, tzinfo=UTC),
    "0/3000028",
    into="database 'shop' on 127.0.0.1:5432",
    schema="rescued",
    notes=("a trigger was left out",),
)


def test_the_first_row_says_what_is_back_and_where() -> None:
    """Then a row for each table, the moment, and where the time went."""
    found = rescued_metadata(LOADED, "transaction 900, just before it")
    assert found["answer"].value == (
        "4,001 rows of 2 tables of database 'shop' are back, as counted on both sides, after 4.0 s: in schema "
        "'rescued' of database 'shop' on 127.0.0.1:5432, beside the living tables"
    )
    assert list(found) == [
        *("answer", "tables", "as of", "last commit", "reached LSN", "notes", "took", "sizes", "rows", "seconds"),
    ]
    tables, took = found["tables"], found["took"]
    assert isinstance(tables, dg.TableMetadataValue)
    assert isinstance(took, dg.TableMetadataValue)
    assert [list(row.data.values()) for row in tables.records] == [
        ["public.orders", "4,000", "rescued.orders"],
        ["public.lines", "1", "rescued.lines"],
    ]
    assert [list(row.data.values()) for row in took.records] == [
        ["download", "1.5 s"],
        ["recovery", "2.0 s"],
        ["load", "0.5 s"],
    ]
    assert (found["rows"].value, found["seconds"].value) == (4001, 4.0)


def test_a_dump_is_named_by_its_path() -> None:
    """No schema is said then, and a recovery that replayed no commit says so."""
    tables = (RescuedTable("public.orders", 1),)
    dump = replace(LOADED, tables=tables, output=Path("/d/o.dump"), into=None, schema=None, reached_commit_at=None)
    assert rescued_sentence(dump) == (
        "1 row of 1 table of database 'shop' are back, as counted on both sides, after 4.0 s: in the dump /d/o.dump"
    )
    assert rescued_metadata(dump, "")["last commit"].value == "no commit was replayed"
