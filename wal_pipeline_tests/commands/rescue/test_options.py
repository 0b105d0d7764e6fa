"""Tests what a rescue refuses before it looks at anything."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.commands.rescue.options import RescueOptions
from wal_pipeline.commands.rescue.wanted import RescueOptionError

NOW = datetime(2026, 11, 29, 17, 55, 30, tzinfo=UTC)


def test_before_an_xid_is_just_before_it() -> None:
    """As ``restore --to-xid N --exclusive``; with the moment of its commit, the base backup is from before that."""
    options = RescueOptions(before_xid=812)
    assert options.target() == RecoveryTarget(TargetKind.XID, xid=812, inclusive=False)
    at = datetime(2026, 11, 29, 17, 0, tzinfo=UTC)
    assert replace(options, committed_at="2026-11-29 17:00:00+00").target().not_before_at == at


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Missing the moment: --before-xid, --to-time, --to-xid, --to-lsn or --to-name."),
        ({"before_xid": 9, "to_lsn": "0/1"}, "Give one moment: --before-xid or another one."),
        ({"to_xid": 9, "to_lsn": "0/1"}, "Give one recovery target: --to-lsn or --to-xid."),
        ({"to_lsn": "0/1", "committed_at": "x"}, "--committed-at is the moment of an xid or of a named restore point."),
    ],
)
def test_one_moment_is_given(given: dict[str, Any], message: str) -> None:
    """None is refused as two are: nobody shall get the end of the archive unasked."""
    with pytest.raises(Exception, match=message.replace(".", r"\.")):
        RescueOptions(**given).target()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Give one of --output FILE and --into CONNINFO."),
        ({"output": Path("/a"), "into": "dbname=b"}, "Give one of --output FILE and --into CONNINFO."),
        (
            {"output": Path("/a"), "as_schema": "x"},
            "--as names the schema for --into: a dump keeps the tables' own schemas.",
        ),
    ],
)
def test_one_destination_is_given(given: dict[str, Any], message: str) -> None:
    """A dump keeps the names, so that it takes no schema."""
    with pytest.raises(RescueOptionError) as error:
        RescueOptions(**given).require_destination()
    assert error.value.message == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Missing option '--table': the table to bring back, such as public.orders."),
        ({"whole_database": True, "tables": ("a",)}, "--whole-database brings all tables: leave out --table."),
        ({"whole_database": True, "database": "a"}, "--whole-database needs --database and --output."),
        ({"whole_database": True, "output": Path("/a")}, "--whole-database needs --database and --output."),
    ],
)
def test_tables_are_named_or_all_are_wanted(given: dict[str, Any], message: str) -> None:
    """A whole database goes into a dump, which makes it anew."""
    with pytest.raises(RescueOptionError) as error:
        RescueOptions(**given).wanted()
    assert error.value.message == message


def test_the_schema_is_named_after_the_minute() -> None:
    """Where nobody names one; a dump has none."""
    assert RescueOptions(into="dbname=a").schema(NOW) == "rescued_20261129t1755"
    assert RescueOptions(output=Path("/a")).schema(NOW) is None
    assert RescueOptions(into="", as_schema="Ü x").schema(NOW) == "Ü x"


@pytest.mark.parametrize("name", ["public", "pg_toast", "information_schema", "", "ü" * 32, "a\0"])
def test_a_schema_of_living_tables_or_of_the_system_is_refused(name: str) -> None:
    """Nor is a name taken that PostgreSQL would cut off."""
    with pytest.raises(RescueOptionError):
        RescueOptions(into="", as_schema=name).schema(NOW)
