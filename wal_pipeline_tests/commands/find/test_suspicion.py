"""Which transaction is suspected, by which rule, and the lines that a person is given to type."""

from dataclasses import replace
from datetime import UTC, datetime

from wal_pipeline.commands.find.found import FoundTransaction, RelationChange, RelationFate
from wal_pipeline.commands.find.suspicion import harm_of, lines_to_type, reason_of
from wal_pipeline.wal.lsn import Lsn

WHEN = "--committed-at 2026-11-22T00:00:00+00:00"
INTO = " --into dbname=shop"
PLAIN = FoundTransaction(datetime(2026, 11, 22, tzinfo=UTC), 900, Lsn(0x3000028), 1, 500, ())


def change(
    label: str, *, deleted: int = 0, updated: int = 0, inserted: int = 0, fate: RelationFate | None = None
) -> RelationChange:
    database = None if "/" in label else "shop"
    return RelationChange(5, 16384, label, inserted, updated, deleted, fate, database)


def doing(*changes: RelationChange) -> FoundTransaction:
    return replace(PLAIN, changes=changes)


def test_a_dropped_database_outweighs_a_dropped_table_and_that_outweighs_rows() -> None:
    """A table that was only written anew lost nothing."""
    database = replace(PLAIN, dropped_databases=("shop",))
    dropped = doing(change("public.a", fate=RelationFate.DROPPED))
    truncated = doing(change("public.a", fate=RelationFate.TRUNCATED))
    rows = doing(change("public.a", deleted=1_000_000))
    vacuumed = doing(change("public.a", fate=RelationFate.REWRITTEN))
    inserted = doing(change("public.a", inserted=9_000_000))
    assert harm_of(database) > harm_of(dropped) == harm_of(truncated) > harm_of(rows) > harm_of(vacuumed)
    assert harm_of(vacuumed) == harm_of(inserted)


def test_the_rule_is_said() -> None:
    """Each kind of suspect has its sentence."""
    assert reason_of(replace(PLAIN, dropped_databases=("shop",))).startswith("it drops 1 database, which")
    assert reason_of(doing(change("public.a", fate=RelationFate.TRUNCATED))).startswith(
        "it drops or truncates 1 relation"
    )
    assert reason_of(doing(change("public.a", deleted=1200))) == "of all it deleted and updated most rows: 1,200"
    assert reason_of(PLAIN) == "no transaction dropped a relation, deleted or updated a row"


def test_the_lines_name_the_tables_that_were_hurt() -> None:
    """All that are gone; else the one that lost most rows. Names are quoted for the shell."""
    lost = doing(change("public.b", deleted=5), change('public."Order"', deleted=7), change("public.c", inserted=100))
    lines = lines_to_type(lost, None)
    assert lines.restore == "wal-pipeline restore --to-xid 900 --exclusive"
    assert lines_to_type(lost, None, "a").restore == "wal-pipeline restore --to-xid 900 --exclusive --base-backup a"
    of_order = "wal-pipeline rescue --table 'public.\"Order\"' --database shop"
    assert lines.rescue == f"{of_order} --before-xid 900 {WHEN}{INTO}"
    gone = doing(
        change("public.a", fate=RelationFate.DROPPED),
        change("public.b", fate=RelationFate.TRUNCATED),
        change("public.c", deleted=50),
    )
    tables = "--table public.a --table public.b --database shop"
    rescue = lines_to_type(gone, 3).rescue
    assert rescue == f"wal-pipeline rescue {tables} --before-xid 900 {WHEN} --timeline 3{INTO}"


def test_a_dropped_database_comes_back_as_a_whole() -> None:
    """From where the transaction begins: at its commit the database has no files any more. Its name must be known."""
    lines = lines_to_type(replace(PLAIN, dropped_databases=("shop",), begin_lsn=Lsn(0x3000000)), None)
    when = "--to-lsn 0/3000000 --exclusive"
    assert lines.restore == f"wal-pipeline restore {when}"
    assert lines.rescue == f"wal-pipeline rescue --whole-database --database shop {when} --output shop.dump"
    assert lines_to_type(replace(PLAIN, dropped_databases=("with oid 16494",)), None).rescue is None


def test_without_a_name_there_is_no_line_for_a_rescue() -> None:
    """Nobody can type a table whose name no list knows."""
    assert lines_to_type(doing(change("5/16384", deleted=5)), None).rescue is None
    assert lines_to_type(PLAIN, None).rescue is None
