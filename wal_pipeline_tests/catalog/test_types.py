"""Column types: every value of 64 bits and every moment comes back, in its order."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select
from sqlalchemy.dialects import postgresql, sqlite

from wal_pipeline.catalog.types import LsnText, SystemIdentifierText, UtcDateTime
from wal_pipeline.wal.lsn import MAX_LSN, Lsn

LSNS = st.integers(0, MAX_LSN).map(Lsn)
MOMENTS = st.datetimes(
    datetime(1000, 1, 2),  # noqa: DTZ001 - hypothesis wants naive bounds
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.integers(-840, 840).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
DIALECTS = (sqlite.dialect(), postgresql.dialect())


@given(LSNS, LSNS)
def test_lsns_sort_as_text(first: Lsn, second: Lsn) -> None:
    """The text's order is the LSN's order, up to the last of 2**64."""
    kind = LsnText()
    for dialect in DIALECTS:
        texts = [kind.process_bind_param(lsn, dialect) or "" for lsn in (first, second)]
        assert (texts[0] < texts[1]) == (first < second)
        assert [kind.process_result_value(text, dialect) for text in texts] == [first, second]


@given(st.integers(0, 2**64 - 1))
def test_system_identifiers_are_exact(value: int) -> None:
    """No digit is lost to a float or a sign."""
    kind = SystemIdentifierText()
    for dialect in DIALECTS:
        assert kind.process_result_value(kind.process_bind_param(value, dialect), dialect) == value


@given(MOMENTS, MOMENTS)
def test_moments_sort_as_text(first: datetime, second: datetime) -> None:
    """SQLite's text sorts as the moments do, whatever zones they came in, and keeps the microsecond."""
    kind = UtcDateTime()
    texts = [kind.process_bind_param(moment, DIALECTS[0]) for moment in (first, second)]
    assert (texts[0] < texts[1]) == (first < second)
    assert [kind.process_result_value(text, DIALECTS[0]) for text in texts] == [first, second]


def test_values_pass_through_a_real_column(tmp_path: Path) -> None:
    """SQLite itself neither rounds nor converts what lies in the columns."""
    table = Table(
        "t",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("a", LsnText()),
        Column("b", SystemIdentifierText()),
    )
    engine = create_engine(f"sqlite:///{tmp_path}/t.sqlite")
    values = [0, 9, 10, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
    with engine.begin() as connection:
        table.metadata.create_all(connection)
        connection.execute(table.insert(), [{"a": Lsn(value), "b": value} for value in reversed(values)])
        assert [tuple(row) for row in connection.execute(select(table.c.a, table.c.b).order_by(table.c.a))] == [
            (value, value) for value in values
        ]
    engine.dispose()
