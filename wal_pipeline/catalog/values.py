"""Keeps single values by key, such as the pause, which one process writes and another reads."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update

from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.schema import stored_values


class Values(Area):
    """Values that JSON can hold, by key."""

    def get(self, key: str) -> Any:
        """Return a value; None where there is none."""
        statement = select(stored_values.c.value).where(self._mine(stored_values), stored_values.c.key == key)
        with self._database.read() as connection:
            return connection.execute(statement).scalar()

    def beginning(self, key: str) -> dict[str, Any]:
        """Return the values whose keys begin so, by key, the least key first."""
        these = stored_values.c.key.startswith(key, autoescape=True)
        statement = select(stored_values.c.key, stored_values.c.value).where(self._mine(stored_values), these)
        with self._database.read() as connection:
            return {row.key: row.value for row in connection.execute(statement.order_by(stored_values.c.key))}

    def put(self, key: str, value: Any) -> None:
        """Keep a value, replacing the last one."""
        row = {"cluster": self._cluster, "key": key, "value": value, "updated_at": self._clock()}
        with self._database.write() as connection:
            self._database.upsert(connection, stored_values, [row])

    def remove(self, key: str) -> None:
        """Forget a value; no error where there is none."""
        with self._database.write() as connection:
            connection.execute(delete(stored_values).where(self._mine(stored_values), stored_values.c.key == key))

    def claim(self, key: str, now: datetime, until: datetime) -> bool:
        """Take a key for this process until a moment; False where another process has it now.

        A killed process keeps it no longer than that. ``remove`` gives it back. A claim that ends later than two such
        claims would was made while a clock was ahead, and does not count.
        """
        row = {"cluster": self._cluster, "key": key, "value": {}, "updated_at": now}
        this = [self._mine(stored_values), stored_values.c.key == key]
        with self._database.write() as connection:
            self._database.insert_absent(connection, stored_values, [row])
            value = connection.execute(select(stored_values.c.value).where(*this).with_for_update()).scalar_one()
            if value and now < datetime.fromisoformat(value["until_at"]) <= until + (until - now):
                return False
            claimed = {"value": {"until_at": until.isoformat()}, "updated_at": now}
            connection.execute(update(stored_values).where(*this).values(claimed))
        return True
