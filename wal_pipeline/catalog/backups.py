"""Keeps the records of base backups and of their copies."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select

from wal_pipeline.archive.format.base_backup.report import BackupReport, report_from_values, report_values
from wal_pipeline.archive.records import BaseBackup, CopyStatus
from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.rows import BACKUP_COLUMNS, backup_from_row, backup_to_row
from wal_pipeline.catalog.schema import base_backup_copies, base_backups, stored_values

# What was said of a base backup lies among the values: a column would make every catalog an old one.
_WORDS: Final = "base_backup_words/"
# By itself, for what was said is kept where a later look finds nothing said; this is the same at each look.
_MORE: Final = "base_backup_more/"


@dataclass(frozen=True, slots=True)
class BaseBackupCopy:
    """One base backup on one store: how many objects it has there with the manifest, and their bytes.

    ``restorable_at`` is when the WAL that it needs was verified on that store too; None: not restorable from there yet.
    """

    backup_id: str
    system_identifier: int
    store: str
    status: CopyStatus
    objects: int
    stored_size_bytes: int
    restorable_at: datetime | None = None
    last_error: str | None = None
    verified_at: datetime | None = None
    last_deep_verified_at: datetime | None = None


_COPY_COLUMNS: Final = [column for column in base_backup_copies.c if column.name not in ("cluster", "updated_at")]


class BaseBackups(Area):
    """Base backups of one cluster."""

    def record(self, backup: BaseBackup, held: Sequence[BaseBackupCopy]) -> None:
        """Record a base backup and copies of it, replacing their earlier records."""
        at = self._clock()
        with self._database.write() as connection:
            self._database.upsert(connection, base_backups, [backup_to_row(self._cluster, backup, at)])
            rows = [self._copy_row(copy, at) for copy in held]
            self._database.upsert(connection, base_backup_copies, rows)
            values = [row for row in (self._words_row(backup, at), self._more_row(backup, at)) if row is not None]
            if values:
                self._database.upsert(connection, stored_values, values)

    def all(self) -> list[BaseBackup]:
        """Return the base backups, the oldest first."""
        statement = select(*BACKUP_COLUMNS).where(self._mine(base_backups))
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(base_backups.c.started_at, base_backups.c.backup_id)).all()
            begins = (stored_values.c.key.startswith(begin, autoescape=True) for begin in (_WORDS, _MORE))
            values = select(stored_values.c.key, stored_values.c.value).where(self._mine(stored_values), or_(*begins))
            kept = {key: value for key, value in connection.execute(values)}  # noqa: C416 - rows, not pairs
        return [_completed(backup_from_row(row), kept) for row in rows]

    def copies(self) -> list[BaseBackupCopy]:
        """Return the copies of all base backups, in the order of their ids, then stores."""
        statement = select(*_COPY_COLUMNS).where(self._mine(base_backup_copies))
        order = (base_backup_copies.c.backup_id, base_backup_copies.c.store)
        with self._database.read() as connection:
            rows = [dict(row._mapping) for row in connection.execute(statement.order_by(*order))]
        return [BaseBackupCopy(**(row | {"status": CopyStatus(row["status"])})) for row in rows]

    def remove_copy(self, system_identifier: int, backup_id: str, store: str) -> None:
        """Forget a base backup's copy on a store, and the base backup itself with its last copy."""
        this = and_(
            self._mine(base_backup_copies),
            base_backup_copies.c.system_identifier == system_identifier,
            base_backup_copies.c.backup_id == backup_id,
            base_backup_copies.c.store == store,
        )
        with self._database.write() as connection:
            connection.execute(delete(base_backup_copies).where(this))
            connection.execute(delete(base_backups).where(self._mine(base_backups), ~exists().where(_same_backup())))
            gone = and_(self._mine(base_backups), base_backups.c.backup_id == backup_id)
            keys = [f"{begin}{system_identifier}/{backup_id}" for begin in (_WORDS, _MORE)]
            connection.execute(
                delete(stored_values).where(
                    self._mine(stored_values), stored_values.c.key.in_(keys), ~exists(select(1).where(gone))
                )
            )

    def remove_unseen(
        self, system_identifier: int, store: str, before: datetime, seen: Collection[str] = ()
    ) -> list[str]:
        """Forget a store's copies, except ``seen``, whose records are older than ``before``; return their ids."""
        unseen = and_(
            self._mine(base_backup_copies),
            base_backup_copies.c.system_identifier == system_identifier,
            base_backup_copies.c.store == store,
            base_backup_copies.c.updated_at < before,
            ~self._database.among(base_backup_copies.c.backup_id, seen),
        )
        with self._database.write() as connection:
            ids = list(connection.execute(select(base_backup_copies.c.backup_id).where(unseen)).scalars())
            connection.execute(delete(base_backup_copies).where(unseen))
            connection.execute(delete(base_backups).where(self._mine(base_backups), ~exists().where(_same_backup())))
        return sorted(ids)

    def _words_row(self, backup: BaseBackup, at: datetime) -> dict[str, object] | None:
        """Return the row for what was said of a base backup; None where nothing was: what is kept then stays."""
        report = BackupReport(backup.warnings, backup.damaged_pages)
        if report.is_empty:
            return None
        value = report_values(report)
        return {"cluster": self._cluster, "key": _key(_WORDS, backup), "value": value, "updated_at": at}

    def _more_row(self, backup: BaseBackup, at: datetime) -> dict[str, object] | None:
        value = {"note": backup.note, "fetched_size_bytes": backup.fetched_size_bytes}
        if value == {"note": "", "fetched_size_bytes": None}:
            return None
        return {"cluster": self._cluster, "key": _key(_MORE, backup), "value": value, "updated_at": at}

    def _copy_row(self, copy: BaseBackupCopy, at: datetime) -> dict[str, object]:
        row = {column.name: getattr(copy, column.name) for column in _COPY_COLUMNS}
        return row | {"cluster": self._cluster, "status": copy.status.value, "updated_at": at}


def _key(begin: str, backup: BaseBackup) -> str:
    return f"{begin}{backup.system_identifier}/{backup.backup_id}"


def _completed(backup: BaseBackup, kept: Mapping[str, Any]) -> BaseBackup:
    """Return a base backup with what lies among the values."""
    words, more = kept.get(_key(_WORDS, backup)), kept.get(_key(_MORE, backup))
    if words is not None:
        report = report_from_values(words)
        backup = replace(backup, warnings=report.warnings, damaged_pages=report.damaged_pages)
    if more is not None:
        backup = replace(backup, note=more["note"], fetched_size_bytes=more["fetched_size_bytes"])
    return backup


def _same_backup() -> ColumnElement[bool]:
    return and_(
        base_backups.c.cluster == base_backup_copies.c.cluster,
        base_backups.c.system_identifier == base_backup_copies.c.system_identifier,
        base_backups.c.backup_id == base_backup_copies.c.backup_id,
    )
