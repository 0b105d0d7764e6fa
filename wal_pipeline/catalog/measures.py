"""Computes figures over many records in the database, which screens and the health sensor need again and again."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import and_, func, or_, select

from wal_pipeline.archive.records import CopyStatus, WalFile
from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.rows import FILE_COLUMNS, file_from_row
from wal_pipeline.catalog.schema import base_backup_copies, copies, files
from wal_pipeline.wal.names import FileKind, segment_name

_SEPARATOR: Final = ","
_BLOCK: Final = 256  # segments read at once: mostly enough for one end of a run


@dataclass(frozen=True, slots=True)
class StoreLag:
    """How long copies took from spooled to verified on one store, and when the newest one was verified."""

    store: str
    copies: int
    median_seconds: float
    p95_seconds: float
    longest_seconds: float
    last_verified_at: datetime


@dataclass(frozen=True, slots=True)
class FailedCopy:
    """One copy whose last try failed. ``held_by`` is a store that has a verified copy of the file."""

    name: str
    store: str
    tries: int
    last_error: str
    held_by: str | None = None


class Measures(Area):
    """Figures of one cluster."""

    def names_by_store(self, system_identifier: int) -> dict[str, list[str]]:
        """Return the names of the files of which each store has a verified copy.

        The database joins them to one text: 100,000 names are read in a tenth of the time of as many rows.
        """
        joined = func.aggregate_strings(copies.c.name, _SEPARATOR)
        statement = (
            select(copies.c.store, joined)
            .where(self._mine(copies), copies.c.system_identifier == system_identifier)
            .where(copies.c.status == CopyStatus.VERIFIED.value)
            .group_by(copies.c.store)
        )
        with self._database.read() as connection:
            return {store: names.split(_SEPARATOR) for store, names in connection.execute(statement) if names}

    def held_names(self, names: Collection[str]) -> dict[tuple[int, str], frozenset[str]]:
        """Return which of these names each store has a verified copy of, by system identifier and store.

        It is one question, however many names. One that a rebuilt catalog knows by its size alone does not count.
        """
        joined = func.aggregate_strings(copies.c.name, _SEPARATOR)
        verified = and_(copies.c.status == CopyStatus.VERIFIED.value, copies.c.verified_at.is_not(None))
        statement = (
            select(copies.c.system_identifier, copies.c.store, joined)
            .where(self._mine(copies), verified, self._database.among(copies.c.name, names))
            .group_by(copies.c.system_identifier, copies.c.store)
        )
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return {(owner, store): frozenset(held.split(_SEPARATOR)) for owner, store, held in rows}

    def names_of(self, system_identifier: int, names: Collection[str]) -> frozenset[str]:
        """Return those of the names that are recorded for one system identifier, in one question."""
        joined = func.aggregate_strings(files.c.name, _SEPARATOR)
        statement = select(joined).where(
            self._mine(files),
            files.c.system_identifier == system_identifier,
            self._database.among(files.c.name, names),
        )
        with self._database.read() as connection:
            found = connection.execute(statement).scalar()
        return frozenset(found.split(_SEPARATOR)) if found else frozenset()

    def segments_between(self, system_identifier: int, first_name: str, last_name: str) -> list[WalFile]:
        """Return the records of the segments from one name to another, both included."""
        statement = select(*FILE_COLUMNS).where(
            self._mine(files),
            files.c.system_identifier == system_identifier,
            files.c.kind == FileKind.SEGMENT.value,
            files.c.name.between(first_name, last_name),
        )
        with self._database.read() as connection:
            return [file_from_row(row) for row in connection.execute(statement)]

    def lags(self, since: datetime) -> dict[str, StoreLag]:
        """Return the lag of the copies that were verified since a moment, per store."""
        chosen = and_(self._mine(copies), copies.c.verified_at >= since, copies.c.lag_seconds.is_not(None))
        statement = select(copies.c.store, copies.c.lag_seconds, copies.c.verified_at).where(
            chosen, copies.c.status == CopyStatus.VERIFIED.value
        )
        found: dict[str, list[tuple[float, datetime]]] = {}
        with self._database.read() as connection:
            for store, seconds, at in connection.execute(statement):
                found.setdefault(store, []).append((seconds, at))
        return {store: _lag(store, values) for store, values in sorted(found.items())}

    def failed_copies(self, tries: int, limit: int, waiting: Collection[str] | None = None) -> list[FailedCopy]:
        """Return the copies that failed ``tries`` times or more, by name, at most ``limit`` of them.

        ``waiting`` are the names of the files in the spool. With it, a file that neither waits nor is on another store
        does not count: there is nothing left to copy.
        """
        held = copies.alias()
        same = and_(*(held.c[name] == copies.c[name] for name in ("cluster", "system_identifier", "name")))
        held_by = (
            select(func.min(held.c.store)).where(same, held.c.status == CopyStatus.VERIFIED.value).scalar_subquery()
        )
        these = and_(self._mine(copies), copies.c.status == CopyStatus.FAILED.value, copies.c.tries >= tries)
        if waiting is not None:
            these = and_(these, or_(held_by.is_not(None), self._database.among(copies.c.name, waiting)))
        statement = select(copies.c.name, copies.c.store, copies.c.tries, copies.c.last_error, held_by).where(these)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(copies.c.name, copies.c.store).limit(limit)).all()
        return [FailedCopy(name, store, count, error or "", other) for name, store, count, error, other in rows]

    def wal_bytes(self) -> tuple[int, int]:
        """Return the bytes of all recorded files, as PostgreSQL wrote them, and their number."""
        statement = select(func.coalesce(func.sum(files.c.size_bytes), 0), func.count()).where(self._mine(files))
        with self._database.read() as connection:
            size_bytes, count = connection.execute(statement).one()
        return int(size_bytes), count

    def stored_since(self, store: str, since: datetime) -> int:
        """Return the stored bytes of a store's verified files that were spooled since a moment."""
        same = and_(*(files.c[name] == copies.c[name] for name in ("cluster", "system_identifier", "name")))
        statement = (
            select(func.coalesce(func.sum(copies.c.stored_size_bytes), 0))
            .join(files, same)
            .where(self._mine(files), files.c.spooled_at >= since)
            .where(copies.c.store == store, copies.c.status == CopyStatus.VERIFIED.value)
        )
        with self._database.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def base_backup_bytes(self) -> dict[str, int]:
        """Return the bytes of base backups that each store holds."""
        stored = func.coalesce(func.sum(base_backup_copies.c.stored_size_bytes), 0)
        statement = select(base_backup_copies.c.store, stored).where(self._mine(base_backup_copies))
        with self._database.read() as connection:
            rows = connection.execute(statement.group_by(base_backup_copies.c.store))
            return {store: int(size_bytes) for store, size_bytes in rows}


class SegmentRecords(Mapping[int, WalFile]):
    """The records of one timeline's segments by their numbers, read in blocks when they are needed.

    A recovery window needs the commit times at the ends of its runs, not those of 100,000 files.
    """

    def __init__(
        self, measures: Measures, system_identifier: int, timeline: int, size: int, numbers: Collection[int]
    ) -> None:
        """``size`` is the segment size in bytes; ``numbers`` are those of the segments that some store holds."""
        self._measures = measures
        self._system_identifier = system_identifier
        self._timeline = timeline
        self._size = size
        self._numbers = numbers
        self._blocks: dict[int, dict[int, WalFile]] = {}

    def __getitem__(self, number: int) -> WalFile:
        """Return a segment's record. Raises: KeyError, CatalogError."""
        block = number // _BLOCK
        if block not in self._blocks:
            self._blocks[block] = self._read(block)
        return self._blocks[block][number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def _read(self, block: int) -> dict[int, WalFile]:
        first, last = (
            segment_name(self._timeline, number, self._size).name
            for number in (block * _BLOCK, block * _BLOCK + _BLOCK - 1)
        )
        per_log = (1 << 32) // self._size
        found = self._measures.segments_between(self._system_identifier, first, last)
        return {
            int(file.name[8:16], 16) * per_log + int(file.name[16:24], 16): file
            for file in found
            if file.wal_segment_size == self._size
        }


def _lag(store: str, values: list[tuple[float, datetime]]) -> StoreLag:
    seconds = sorted(value for value, _ in values)
    last = len(seconds) - 1
    return StoreLag(
        store,
        len(seconds),
        seconds[last // 2],
        seconds[round(0.95 * last)],
        seconds[-1],
        max(at for _, at in values),
    )
