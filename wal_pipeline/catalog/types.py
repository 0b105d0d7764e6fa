"""Defines column types that hold the same values on SQLite and on PostgreSQL, and sort the same."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from wal_pipeline.wal.lsn import Lsn

# SQLite numbers rows by itself only in a column of type INTEGER.
RowNumber: Final[TypeEngine[int]] = BigInteger().with_variant(Integer(), "sqlite")
Json: Final[TypeEngine[Any]] = JSON().with_variant(JSONB(), "postgresql")


def code(length: int) -> TypeEngine[str]:
    """Return a text type that sorts by bytes on both databases: PostgreSQL's default collation may not."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment, which is read back in UTC.

    PostgreSQL has ``timestamptz``. SQLite has no such type: there it is ISO 8601 text of fixed width with
    microseconds, which sorts as the moments do.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column's type in this database."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Turn an aware moment into the database's value. Raises: ValueError where it has no time zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"moment {value.isoformat()} has no time zone")
        utc = value.astimezone(UTC)
        return utc.isoformat(timespec="microseconds") if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Turn the database's value into an aware moment."""
        if value is None:
            return None
        return datetime.fromisoformat(value) if dialect.name == "sqlite" else value.astimezone(UTC)


def moments(stored: Iterable[Any]) -> list[datetime | None]:
    """Turn a whole column, as the driver gives it, into aware moments, as ``UtcDateTime`` does one by one."""
    return [
        None if value is None else datetime.fromisoformat(value) if type(value) is str else value.astimezone(UTC)
        for value in stored
    ]


def lsns(stored: Iterable[str | None]) -> list[Lsn | None]:
    """Turn a whole column, as the driver gives it, into LSNs, as ``LsnText`` does one by one."""
    return [None if digits is None else Lsn(int(digits, 16)) for digits in stored]


class LsnText(TypeDecorator[Lsn]):
    """An LSN as 16 hex digits.

    It is an unsigned 64-bit number, and neither database has one: a signed integer overflows from 8000000000000000
    on, ``numeric`` is a float on SQLite, and ``pg_lsn`` is PostgreSQL's alone. Text of fixed width sorts right
    everywhere and can still be read by a person.
    """

    impl = code(16)
    cache_ok = True

    def process_bind_param(self, value: Lsn | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Turn an LSN into 16 hex digits."""
        return None if value is None else f"{int(value):016X}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> Lsn | None:  # noqa: ARG002
        """Turn 16 hex digits into an LSN."""
        return None if value is None else Lsn(int(value, 16))


class SystemIdentifierText(TypeDecorator[int]):
    """A system identifier in decimal, as ``pg_controldata`` and the object keys show it.

    It is an unsigned 64-bit number too, and is compared for equality only.
    """

    impl = code(20)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Turn the number into its decimal digits."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Turn decimal digits into the number."""
        return None if value is None else int(value)
