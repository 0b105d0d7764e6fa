"""Tests which words ``pg_dump`` gets, and how the rows of a dump are counted; a rescue's tests run the programs."""

from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.pg_dump import DumpChoice, DumpPrograms, count_copied, find_dump_programs


def test_a_name_is_never_a_pattern() -> None:
    """``pg_dump`` reads wildcards and capitals outside quotes as patterns, and inside them as letters."""
    choice = DumpChoice((("public", "a*b"), ("Sales", 'x"y'), ("public", "plain_1")), encoding=None)
    assert choice.arguments() == [
        '--table=public."a*b"',
        '--table="Sales"."x""y"',
        "--table=public.plain_1",
        "--strict-names",
    ]
    assert DumpChoice(schema="R?").arguments() == ['--schema="R?"', "--strict-names", "--encoding=UTF8"]
    assert DumpChoice().arguments() == ["--encoding=UTF8"]


def test_rows_are_counted_by_table() -> None:
    """A row is a line, whatever it holds; what stands between two tables is no row."""
    script = b"""--
SET client_encoding = 'UTF8';
COPY public.orders (id, label) FROM stdin;
1\tCOPY public.other (id) FROM stdin;
2\t\\\\.
3\t
\\.


SELECT pg_catalog.setval('public.orders_id_seq', 3, true);
COPY "Sales"."a ""b"" (c) FROM stdin;" (id) FROM stdin;
\\.
COPY public."Gr\xc3\xb6\xc3\x9fe"  FROM stdin;


\\.
"""
    assert count_copied(script.splitlines(keepends=True)) == {
        ("public", "orders"): 3,
        ("Sales", 'a "b" (c) FROM stdin;'): 0,
        ("public", "Größe"): 2,
    }


def test_a_missing_pg_dump_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any newer major version will do; an older one reads no newer server."""
    monkeypatch.delenv("PGBINDIR", raising=False)
    with pytest.raises(PostgresError) as error:
        find_dump_programs(99, tmp_path)
    assert error.value.message.startswith("no 'pg_dump', 'pg_restore' of PostgreSQL 99 or newer found in ")
    assert error.value.hint == (
        "Install PostgreSQL's client programs: postgresql-client-99 (Debian, Ubuntu) or postgresql99 (the project's "
        "RPMs); or set PGBINDIR to the folder that holds them."
    )


def test_a_program_that_fails_is_quoted_without_the_secret(postgres18: PostgresInstall, tmp_path: Path) -> None:
    """A dump that cannot be read is no dump of no rows."""
    binaries = find_dump_programs(18, postgres18.bin_folder)
    (tmp_path / "word-7").write_bytes(b"no dump")
    programs = DumpPrograms(binaries, {}, secret="word-7")
    with pytest.raises(PostgresError, match="pg_restore failed: pg_restore: error: input file") as error:
        programs.count_rows(tmp_path / "word-7")
    assert "word-7" not in error.value.message
