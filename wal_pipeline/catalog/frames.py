"""Returns the records as pandas frames, for reports.

Columns named ``_at`` are UTC moments; those of bytes and seconds are numbers.
"""

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Select, Table, and_, select

from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.schema import alerts, archive_events, base_backup_copies, base_backups, copies, drills, files

if TYPE_CHECKING:  # pandas takes a second to import, and only reports need it
    import pandas as pd


class Frames(Area):
    """One frame per table; without rows, an empty frame with the same columns."""

    def files(self) -> "pd.DataFrame":
        """Return one row per file, in the order of their names."""
        return self._frame(select(*_columns(files)).where(self._mine(files)).order_by(files.c.name))

    def copies(self) -> "pd.DataFrame":
        """Return one row per copy, with its file's columns, in the order of their names, then stores."""
        same = and_(*(files.c[name] == copies.c[name] for name in ("cluster", "system_identifier", "name")))
        shared = set(files.c.keys())
        chosen = [*_columns(files, "updated_at"), *(column for column in copies.c if column.name not in shared)]
        statement = select(*chosen, copies.c.updated_at).join(copies, same).where(self._mine(files))
        return self._frame(statement.order_by(copies.c.name, copies.c.store))

    def base_backups(self) -> "pd.DataFrame":
        """Return one row per base backup, the oldest first."""
        statement = select(*_columns(base_backups)).where(self._mine(base_backups))
        return self._frame(statement.order_by(base_backups.c.started_at))

    def base_backup_copies(self) -> "pd.DataFrame":
        """Return one row per base backup and store."""
        statement = select(*_columns(base_backup_copies)).where(self._mine(base_backup_copies))
        return self._frame(statement.order_by(base_backup_copies.c.backup_id, base_backup_copies.c.store))

    def alerts(self) -> "pd.DataFrame":
        """Return one row per alert, the oldest first."""
        return self._frame(select(*_columns(alerts)).where(self._mine(alerts)).order_by(alerts.c.opened_at))

    def archive_events(self) -> "pd.DataFrame":
        """Return one row per store and hour: copies attempted, succeeded and failed."""
        statement = select(*_columns(archive_events)).where(self._mine(archive_events))
        return self._frame(statement.order_by(archive_events.c.hour_at, archive_events.c.store))

    def drills(self) -> "pd.DataFrame":
        """Return one row per drill, the oldest first."""
        return self._frame(select(*_columns(drills)).where(self._mine(drills)).order_by(drills.c.started_at))

    def _frame(self, statement: "Select[*tuple[Any, ...]]") -> "pd.DataFrame":
        import pandas as pd  # noqa: PLC0415 - see above

        names = [str(column.key) for column in statement.selected_columns]
        with self._database.read() as connection:
            rows = [tuple(row) for row in connection.execute(statement)]
        frame = pd.DataFrame.from_records(rows, columns=names)
        for name in names:
            if name.endswith("_at"):
                frame[name] = pd.to_datetime(frame[name], utc=True)
        return frame


def _columns(table: Table, *without: str) -> "list[Column[Any]]":
    return [column for column in table.c if column.name not in ("cluster", *without)]
