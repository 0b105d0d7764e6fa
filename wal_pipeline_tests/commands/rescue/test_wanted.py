"""Tests that a table's name means one table, and never a pattern."""

import pytest

from wal_pipeline.commands.rescue.wanted import RescueOptionError, TableNotFoundError, WantedTable, choose_one
from wal_pipeline.errors import RestoreError

NAMES = [("public", "orders"), ("sales", "orders"), ("public", "Orders"), ("public", "my.table"), ("x", "a*b")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("public.orders", ("public", "orders")),
        ("Orders", ("public", "Orders")),
        ('"Orders"', ("public", "Orders")),
        ("SALES.ORDERS", ("sales", "orders")),
        ('public."my.table"', ("public", "my.table")),
        ("my.table", ("public", "my.table")),
        ("a*b", ("x", "a*b")),
    ],
)
def test_a_name_is_found_as_it_was_meant(text: str, found: tuple[str, str]) -> None:
    """As it is spelt, else as SQL reads it."""
    assert choose_one(WantedTable.parse(text), NAMES, "shop") == found


def test_a_name_in_several_schemas_is_asked_for() -> None:
    """All of them are named."""
    with pytest.raises(RestoreError) as error:
        choose_one(WantedTable.parse("orders"), NAMES, "shop")
    assert str(error.value) == (
        "'orders' may be one of 2 tables of database 'shop': public.orders, sales.orders\n"
        "HINT: Name one of them with its schema, such as --table 'public.orders'."
    )


@pytest.mark.parametrize("text", ["order", "ordres", "sales.Ordres"])
def test_a_name_that_is_not_there_gets_the_nearest_ones(text: str) -> None:
    """From all schemas, in quotes where they need them."""
    with pytest.raises(TableNotFoundError) as error:
        choose_one(WantedTable.parse(text), NAMES, "shop")
    assert error.value.message == f"database 'shop' had no table '{text}' at that moment"
    assert error.value.hint == 'The nearest names there: public."Orders", public.orders, sales.orders.'


def test_a_pattern_matches_nothing() -> None:
    """A star is a letter of a name."""
    with pytest.raises(TableNotFoundError):
        choose_one(WantedTable.parse("public.*"), NAMES, "shop")


@pytest.mark.parametrize("text", ["", " ", "a\0b"])
def test_what_is_no_name_is_refused(text: str) -> None:
    """Before anything is looked at."""
    with pytest.raises(RescueOptionError):
        WantedTable.parse(text)
