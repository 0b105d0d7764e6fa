"""Names of relations are written and read as PostgreSQL does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.recovery.names.identifiers import parse_identifiers, quote_identifier, quoted_name

NAMES = st.text(min_size=1, max_size=20)


@given(NAMES, NAMES)
def test_a_label_is_read_back_as_its_name(schema: str, name: str) -> None:
    """What a command prints can be pasted into another one, whatever the name."""
    assert parse_identifiers(quoted_name(schema, name))[0] == (schema, name)


def test_only_plain_names_stand_without_quotes() -> None:
    """As ``quote_ident`` does it, but for the words that PostgreSQL reserves: after a dot it takes them."""
    assert [quote_identifier(name) for name in ("orders_2$", "Orders", "ü", "2nd", 'a"b')] == [
        "orders_2$",
        '"Orders"',
        '"ü"',
        '"2nd"',
        '"a""b"',
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders", ((None, "orders"),)),
        (" Sales.Orders ", (("Sales", "Orders"), ("sales", "orders"), (None, "Sales.Orders"))),
        ('"Sales".Orders', (("Sales", "Orders"), ("Sales", "orders"), (None, '"Sales".Orders'))),
        ("a.b.c", ((None, "a.b.c"),)),
        ('"open', ((None, '"open'),)),
        ("a.", ((None, "a."),)),
        ("", ()),
    ],
)
def test_a_person_may_mean_several_names(text: str, expected: tuple[tuple[str | None, str], ...]) -> None:
    """As it is spelt first, then as PostgreSQL folds it, then the whole text as one name."""
    assert parse_identifiers(text) == expected
