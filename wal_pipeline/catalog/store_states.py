"""Keeps the records of each store (its state, tries and requests), and the system identifiers that were seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Table, select

from wal_pipeline.catalog.area import Area
from wal_pipeline.catalog.schema import archive_events, requests, store_states, system_identifiers


@dataclass(frozen=True, slots=True)
class StoreState:
    """Whether a store works. It is not tried again before ``retry_at``."""

    store: str
    consecutive_failures: int = 0
    last_error: str | None = None
    last_failure_at: datetime | None = None
    last_success_at: datetime | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ArchiveEvents:
    """How many copies were tried on a store in the hour that begins at ``hour_at``."""

    store: str
    hour_at: datetime
    attempted: int
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """A store's requests on the UTC day that begins at ``day_at``; class A: put and list, class B: get and head."""

    store: str
    day_at: datetime
    class_a: int = 0
    class_b: int = 0
    uploaded_bytes: int = 0
    downloaded_bytes: int = 0


class Stores(Area):
    """The records of each store."""

    def states(self) -> dict[str, StoreState]:
        """Return each store's state, by name; a store that was never tried has none."""
        columns = [column for column in store_states.c if column.name != "cluster"]
        with self._database.read() as connection:
            rows = connection.execute(select(*columns).where(self._mine(store_states))).all()
        return {row.store: StoreState(*row) for row in rows}

    def save_state(self, state: StoreState) -> None:
        """Record a store's state."""
        row = {
            "cluster": self._cluster,
            "store": state.store,
            "consecutive_failures": state.consecutive_failures,
            "last_error": state.last_error,
            "last_failure_at": state.last_failure_at,
            "last_success_at": state.last_success_at,
            "retry_at": state.retry_at,
        }
        with self._database.write() as connection:
            self._database.upsert(connection, store_states, [row])

    def count_events(self, store: str, at: datetime, *, succeeded: int = 0, failed: int = 0) -> None:
        """Add tries to the counts of the hour of ``at``."""
        counts = {"attempted": succeeded + failed, "succeeded": succeeded, "failed": failed}
        hour_at = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        self._add(archive_events, {"store": store, "hour_at": hour_at}, counts)

    def events(self, since: datetime) -> list[ArchiveEvents]:
        """Return the counts of each hour that began at ``since`` or later."""
        columns = [column for column in archive_events.c if column.name != "cluster"]
        statement = select(*columns).where(self._mine(archive_events), archive_events.c.hour_at >= since)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(archive_events.c.hour_at, archive_events.c.store)).all()
        return [ArchiveEvents(*row) for row in rows]

    def count_requests(self, counts: RequestCounts) -> None:
        """Add requests and bytes to the counts of the UTC day of ``counts.day_at``."""
        key = {"store": counts.store, "day_at": _day(counts.day_at)}
        names = ("class_a", "class_b", "uploaded_bytes", "downloaded_bytes")
        self._add(requests, key, {name: getattr(counts, name) for name in names})

    def requests(self, since: datetime) -> list[RequestCounts]:
        """Return the counts of each day that began at ``since`` or later."""
        columns = [column for column in requests.c if column.name != "cluster"]
        statement = select(*columns).where(self._mine(requests), requests.c.day_at >= since)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(requests.c.day_at, requests.c.store)).all()
        return [RequestCounts(*row) for row in rows]

    def _add(self, table: Table, key: Mapping[str, object], counts: Mapping[str, int]) -> None:
        with self._database.write() as connection:
            self._database.upsert_sums(connection, table, {"cluster": self._cluster, **key, **counts}, tuple(counts))


def _day(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


class SystemIdentifiers(Area):
    """The PostgreSQL clusters that were seen under this cluster's name."""

    def known(self) -> list[int]:
        """Return the known system identifiers, the first seen first."""
        statement = select(system_identifiers.c.system_identifier).where(self._mine(system_identifiers))
        with self._database.read() as connection:
            return list(connection.execute(statement.order_by(system_identifiers.c.first_seen_at)).scalars())

    def add(self, system_identifier: int, how: str, at: datetime) -> None:
        """Record a system identifier and ``how`` it became known; one that is known stays as it is."""
        row = {
            "cluster": self._cluster,
            "system_identifier": system_identifier,
            "first_seen_at": at,
            "how": how,
        }
        with self._database.write() as connection:
            self._database.insert_absent(connection, system_identifiers, [row])
