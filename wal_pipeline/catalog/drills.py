"""Keeps the records of drills."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select

from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.schema import drills


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """One drill: a restore from ``store`` alone to ``target``. ``seconds`` per phase; ``ok`` is None while it runs."""

    drill_id: str
    store: str
    target: str
    started_at: datetime
    finished_at: datetime | None = None
    ok: bool | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


class Drills(Area):
    """Drills of one cluster."""

    def record(self, drill: DrillRecord) -> None:
        """Record a drill, replacing its earlier record."""
        row = {column.name: getattr(drill, column.name) for column in drills.c if column.name != "cluster"}
        row |= {"cluster": self._cluster, "seconds": dict(drill.seconds), "detail": dict(drill.detail)}
        with self._database.write() as connection:
            self._database.upsert(connection, drills, [row])

    def all(self) -> list[DrillRecord]:
        """Return the drills, the oldest first."""
        columns = [column for column in drills.c if column.name != "cluster"]
        statement = select(*columns).where(self._mine(drills)).order_by(drills.c.started_at, drills.c.drill_id)
        with self._database.read() as connection:
            return [DrillRecord(**row._mapping) for row in connection.execute(statement)]

    def last(self, store: str) -> DrillRecord | None:
        """Return the last finished drill from a store."""
        finished = [drill for drill in self.all() if drill.store == store and drill.finished_at is not None]
        return finished[-1] if finished else None
