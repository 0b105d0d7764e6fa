"""Keeps the records of files and their copies, which the archiver reads and writes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    select,
    type_coerce,
    update,
)
from sqlalchemy.types import NULLTYPE

from wal_pipeline.archive.records import Copy, CopyStatus, KnownCopy, WalFile
from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.rows import (
    COPY_COLUMNS,
    FILE_COLUMNS,
    PLAIN_FILE_COLUMNS,
    copy_from_row,
    copy_to_row,
    file_from_row,
    file_to_row,
    files_from_rows,
    known_copies_from_rows,
)
from wal_pipeline.catalog.schema import copies, files
from wal_pipeline.catalog.types import UtcDateTime
from wal_pipeline.errors import CatalogError
from wal_pipeline.host.gc_pause import many_objects
from wal_pipeline.wal.names import FileKind

FileKey = tuple[int, str]
"""A system identifier and a name: the same name exists once per system identifier."""


@dataclass(frozen=True, slots=True)
class CopyFilter:
    """Selects files and copies; a field that is None does not filter.

    ``since``: spooled at that moment or later. ``first_name`` and ``last_name`` are both included.
    """

    system_identifier: int | None = None
    status: CopyStatus | None = None
    store: str | None = None
    since: datetime | None = None
    first_name: str | None = None
    last_name: str | None = None


@dataclass(frozen=True, slots=True)
class CopyTotal:
    """How many copies with one status a store has, and their stored bytes."""

    store: str
    status: CopyStatus
    files: int
    stored_bytes: int


class Files(Area):
    """Files and copies of one cluster."""

    def files_of(self, names: Collection[str]) -> dict[FileKey, WalFile]:
        """Return the recorded files of these names."""
        statement = self._files().where(self._database.among(files.c.name, names))
        with self._database.read() as connection, many_objects():
            found = [file_from_row(row) for row in connection.execute(statement)]
        return {(file.system_identifier, file.name): file for file in found}

    def copies_of(self, names: Collection[str]) -> dict[FileKey, dict[str, Copy]]:
        """Return the recorded copies of the files of these names, by store."""
        statement = self._copies().where(self._database.among(copies.c.name, names))
        found: dict[FileKey, dict[str, Copy]] = {}
        with self._database.read() as connection, many_objects():
            for row in connection.execute(statement):
                copy = copy_from_row(row)
                found.setdefault((copy.system_identifier, copy.name), {})[copy.store] = copy
        return found

    def record_verified(self, file: WalFile, verified: Sequence[Copy]) -> None:
        """Record a file and its verified copies, all or nothing.

        Raises: CatalogError where the name is recorded with other content that a store holds.
        """
        at = self._clock()
        tried = {"last_tried_at": at}
        with self._database.write() as connection:
            self._record_file(connection, file, at)
            rows = [copy_to_row(self._cluster, copy, at) | tried for copy in verified]
            self._database.upsert(connection, copies, rows)

    def record_failed(self, file: WalFile, failed: Copy) -> None:
        """Record that a try to store a copy failed.

        A verified copy stays recorded as verified after a failed second try. The file's own record stays too, where a
        store holds a copy with other content.
        """
        at = self._clock()
        row = copy_to_row(self._cluster, failed, at) | {"last_tried_at": at}
        with self._database.write() as connection:
            if self._held_content(connection, file) in (None, file.sha256):
                self._database.upsert(connection, files, [file_to_row(self._cluster, file, at)])
            insert = self._database.insert(copies).values(row)
            changes = {name: insert.excluded[name] for name in row if name not in copies.primary_key.columns}
            not_verified = copies.c.status != CopyStatus.VERIFIED.value
            keys = list(copies.primary_key)
            connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changes, where=not_verified))

    def mark_released(self, system_identifier: int, names: Collection[str], at: datetime) -> None:
        """Record that the files with these names were removed from the spool."""
        with self._database.write() as connection:
            connection.execute(
                update(files)
                .where(self._mine(files), files.c.system_identifier == system_identifier)
                .where(self._database.among(files.c.name, names))
                .values(released_at=at, updated_at=at)
            )

    def record_found(self, found: Sequence[WalFile], found_copies: Sequence[Copy]) -> None:
        """Record files and copies found on stores; ``last_tried_at`` and deep verification stay as they are."""
        at = self._clock()
        with self._database.write() as connection:
            self._database.upsert(connection, files, [file_to_row(self._cluster, file, at) for file in found])
            self._database.upsert(connection, copies, [copy_to_row(self._cluster, copy, at) for copy in found_copies])

    def set_status(
        self,
        system_identifier: int,
        names: Collection[str],
        store: str,
        status: CopyStatus,
        *,
        last_error: str | None = None,
        deep_verified_at: datetime | None = None,
    ) -> None:
        """Record the status that a verification gave to copies; ``deep_verified_at`` where their content was read."""
        changes = {"status": status.value, "last_error": last_error, "updated_at": self._clock()}
        if deep_verified_at is not None:
            changes["last_deep_verified_at"] = deep_verified_at
        with self._database.write() as connection:
            connection.execute(update(copies).where(self._these(system_identifier, names, store)).values(changes))

    def remove_copy(self, system_identifier: int, names: Collection[str], store: str) -> None:
        """Forget copies that expired from a store, and the files that lost their last copy."""
        with self._database.write() as connection:
            connection.execute(delete(copies).where(self._these(system_identifier, names, store)))
            self._remove_bare_files(connection, self._database.among(files.c.name, names))

    def forget_tries(self, name: str) -> None:
        """Forget the copies that were never stored of a file that will not be archived any more."""
        never = copies.c.status.in_([CopyStatus.FAILED.value, CopyStatus.PENDING.value])
        with self._database.write() as connection:
            connection.execute(delete(copies).where(self._mine(copies), copies.c.name == name, never))
            self._remove_bare_files(connection, files.c.name == name)

    def remove_unseen(
        self, system_identifier: int, store: str, before: datetime, seen: Collection[str] = ()
    ) -> list[str]:
        """Forget a store's copies, except ``seen``, whose records are older than ``before``; return their names."""
        unseen = and_(
            self._mine(copies),
            copies.c.system_identifier == system_identifier,
            copies.c.store == store,
            copies.c.updated_at < before,
            ~self._database.among(copies.c.name, seen),
        )
        with self._database.write() as connection:
            names = list(connection.execute(select(copies.c.name).where(unseen).order_by(copies.c.name)).scalars())
            connection.execute(delete(copies).where(unseen))
            self._remove_bare_files(connection, self._database.among(files.c.name, names))
        return names

    def files(self, only: CopyFilter = CopyFilter()) -> list[WalFile]:
        """Return files in the order of their names; with ``status`` or ``store``, those that have such a copy."""
        statement = select(*PLAIN_FILE_COLUMNS).where(self._mine(files), *self._file_conditions(only))
        if only.status is not None or only.store is not None:
            statement = statement.where(exists().where(_same_file(), *_copy_conditions(only)))
        with self._database.read() as connection, many_objects():
            rows = connection.execute(statement.order_by(files.c.system_identifier, files.c.name)).fetchall()
            return files_from_rows(rows)

    def copies(self, only: CopyFilter = CopyFilter()) -> list[Copy]:
        """Return copies in the order of their names, then stores."""
        statement = self._copies().join(files, _same_file())
        statement = statement.where(*self._file_conditions(only), *_copy_conditions(only))
        order = (copies.c.system_identifier, copies.c.name, copies.c.store)
        with self._database.read() as connection, many_objects():
            return [copy_from_row(row) for row in connection.execute(statement.order_by(*order))]

    def known_copies(self, system_identifier: int) -> dict[str, dict[str, KnownCopy]]:
        """Return all copies of one system identifier in short, by store and name."""
        columns = (copies.c.store, copies.c.name, copies.c.status, copies.c.stored_size_bytes)
        statement = select(*columns, type_coerce(copies.c.verified_at, NULLTYPE)).where(
            self._mine(copies), copies.c.system_identifier == system_identifier
        )
        with self._database.read() as connection, many_objects():
            return known_copies_from_rows(connection.execute(statement).fetchall())

    def count_by_log(self, system_identifier: int) -> list[tuple[str, int]]:
        """Count the segments of each timeline and log: the first 16 digits of a name, in ascending order."""
        digits = func.substr(files.c.name, 1, 16)
        statement = (
            select(digits, func.count())
            .where(self._mine(files), files.c.system_identifier == system_identifier)
            .where(files.c.kind == FileKind.SEGMENT.value)
            .group_by(digits)
        )
        with self._database.read() as connection:
            return sorted((log, count) for log, count in connection.execute(statement))

    def names_on(self, store: str, status: CopyStatus = CopyStatus.VERIFIED) -> set[FileKey]:
        """Return the files of which a store has a copy with this status."""
        statement = select(copies.c.system_identifier, copies.c.name).where(
            self._mine(copies), copies.c.store == store, copies.c.status == status.value
        )
        with self._database.read() as connection:
            return {(system_identifier, name) for system_identifier, name in connection.execute(statement)}

    def read_moments(self) -> dict[tuple[str, FileKey], datetime | None]:
        """Return when each copy's content was last read, by a deep verification or when stored, by store and file."""
        read_at = func.coalesce(copies.c.last_deep_verified_at, copies.c.verified_at, type_=UtcDateTime())
        statement = select(copies.c.store, copies.c.system_identifier, copies.c.name, read_at)
        with self._database.read() as connection, many_objects():
            rows = connection.execute(statement.where(self._mine(copies)))
            return {(store, (system_identifier, name)): at for store, system_identifier, name, at in rows}

    def totals(self) -> list[CopyTotal]:
        """Count copies and stored bytes per store and status."""
        stored = func.coalesce(func.sum(copies.c.stored_size_bytes), 0)
        statement = (
            select(copies.c.store, copies.c.status, func.count(), stored)
            .where(self._mine(copies))
            .group_by(copies.c.store, copies.c.status)
            .order_by(copies.c.store, copies.c.status)
        )
        with self._database.read() as connection:
            return [
                CopyTotal(store, CopyStatus(status), count, int(size))
                for store, status, count, size in connection.execute(statement)
            ]

    def count(self) -> int:
        """Count the recorded files."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(files).where(self._mine(files))).scalar_one()

    def newest(self, system_identifier: int | None = None) -> WalFile | None:
        """Return the segment with the highest end LSN on the highest timeline."""
        statement = self._files().where(files.c.kind == FileKind.SEGMENT.value)
        if system_identifier is not None:
            statement = statement.where(files.c.system_identifier == system_identifier)
        with self._database.read() as connection:
            row = connection.execute(statement.order_by(files.c.name.desc()).limit(1)).first()
        return None if row is None else file_from_row(row)

    def _files(self) -> "Select[*tuple[Any, ...]]":
        return select(*FILE_COLUMNS).where(self._mine(files))

    def _copies(self) -> "Select[*tuple[Any, ...]]":
        return select(*COPY_COLUMNS).where(self._mine(copies))

    def _these(self, system_identifier: int, names: Collection[str], store: str) -> ColumnElement[bool]:
        return and_(
            self._mine(copies),
            copies.c.system_identifier == system_identifier,
            copies.c.store == store,
            self._database.among(copies.c.name, names),
        )

    def _record_file(self, connection: Connection, file: WalFile, at: datetime) -> None:
        held = self._held_content(connection, file)
        if held not in (None, file.sha256):
            raise CatalogError(
                f"file '{file.name}' is recorded with content {held}, found {file.sha256}",
                hint="A copy is never overwritten: 'wal-pipeline verify --deep' shows which content the stores hold.",
            )
        self._database.upsert(connection, files, [file_to_row(self._cluster, file, at)])

    def _held_content(self, connection: Connection, file: WalFile) -> str | None:
        """Return the recorded SHA-256 of a file that has a verified copy on some store."""
        key = {"cluster": self._cluster, "system_identifier": file.system_identifier, "name": file.name}
        return connection.execute(_HELD_CONTENT, key).scalar()

    def _remove_bare_files(self, connection: Connection, these: ColumnElement[bool]) -> None:
        connection.execute(delete(files).where(self._mine(files), these, ~exists().where(_same_file())))

    def _file_conditions(self, only: CopyFilter) -> list[ColumnElement[bool]]:
        wanted = {
            "system_identifier": (only.system_identifier, files.c.system_identifier.__eq__),
            "since": (only.since, files.c.spooled_at.__ge__),
            "first_name": (only.first_name, files.c.name.__ge__),
            "last_name": (only.last_name, files.c.name.__le__),
        }
        return [condition(value) for value, condition in wanted.values() if value is not None]


def _copy_conditions(only: CopyFilter) -> list[ColumnElement[bool]]:
    conditions = []
    if only.status is not None:
        conditions.append(copies.c.status == only.status.value)
    if only.store is not None:
        conditions.append(copies.c.store == only.store)
    return conditions


def _same_file() -> ColumnElement[bool]:
    return and_(
        files.c.cluster == copies.c.cluster,
        files.c.system_identifier == copies.c.system_identifier,
        files.c.name == copies.c.name,
    )


# Built once: it runs for each copy, and SQLAlchemy takes longer to build it than the database to answer it.
_HELD_CONTENT: Final = (
    select(files.c.sha256)
    .join(copies, _same_file())
    .where(*(files.c[name] == bindparam(name) for name in ("cluster", "system_identifier", "name")))
    .where(copies.c.status == CopyStatus.VERIFIED.value)
)
