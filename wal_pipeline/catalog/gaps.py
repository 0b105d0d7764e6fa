"""Keeps the records of gaps that a person accepted."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import and_, delete, select

from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.schema import gap_acknowledgements


@dataclass(frozen=True, slots=True)
class GapAcknowledgement:
    """The record that a person accepted a gap, with its first and last missing segment."""

    system_identifier: int
    timeline: int
    first_missing: str
    last_missing: str
    acknowledged_by: str
    reason: str
    acknowledged_at: datetime


class Gaps(Area):
    """Acknowledged gaps of one cluster."""

    def acknowledge(self, gap: GapAcknowledgement) -> None:
        """Record who accepted a gap and why, replacing an earlier record."""
        columns = [column.name for column in gap_acknowledgements.c if column.name != "cluster"]
        row = {name: getattr(gap, name) for name in columns} | {"cluster": self._cluster}
        with self._database.write() as connection:
            self._database.upsert(connection, gap_acknowledgements, [row])

    def acknowledged(self) -> list[GapAcknowledgement]:
        """Return the acknowledged gaps, the oldest acknowledgement first."""
        columns = [column for column in gap_acknowledgements.c if column.name != "cluster"]
        statement = select(*columns).where(self._mine(gap_acknowledgements))
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(gap_acknowledgements.c.acknowledged_at)).all()
        return [GapAcknowledgement(**row._mapping) for row in rows]

    def withdraw(self, gap: GapAcknowledgement) -> None:
        """Forget an acknowledgement; no error where there is none."""
        this = [gap_acknowledgements.c[name] == getattr(gap, name) for name in _GAP_KEY]
        with self._database.write() as connection:
            connection.execute(delete(gap_acknowledgements).where(and_(self._mine(gap_acknowledgements), *this)))


_GAP_KEY: Final = ("system_identifier", "timeline", "first_missing", "last_missing")
