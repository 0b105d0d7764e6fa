"""Opens the catalog of one cluster and gives access to all its areas."""

from datetime import UTC, datetime

from wal_pipeline.catalog.alerts import Alerts
from wal_pipeline.catalog.area import Clock
from wal_pipeline.catalog.backups import BaseBackups
from wal_pipeline.catalog.drills import Drills
from wal_pipeline.catalog.engine import Database, open_database
from wal_pipeline.catalog.files import Files
from wal_pipeline.catalog.frames import Frames
from wal_pipeline.catalog.gaps import Gaps
from wal_pipeline.catalog.measures import Measures
from wal_pipeline.catalog.migrate import ensure_schema
from wal_pipeline.catalog.store_states import Stores, SystemIdentifiers
from wal_pipeline.catalog.values import Values


class Catalog:
    """The records of one cluster; usable from several threads, and by several processes at once."""

    def __init__(self, database: Database, cluster: str, clock: Clock) -> None:
        self.database = database
        self.cluster = cluster
        self.now = clock
        self.files = Files(database, cluster, clock)
        self.base_backups = BaseBackups(database, cluster, clock)
        self.stores = Stores(database, cluster, clock)
        self.system_identifiers = SystemIdentifiers(database, cluster, clock)
        self.alerts = Alerts(database, cluster, clock)
        self.drills = Drills(database, cluster, clock)
        self.gaps = Gaps(database, cluster, clock)
        self.measures = Measures(database, cluster, clock)
        self.frames = Frames(database, cluster, clock)
        self.values = Values(database, cluster, clock)

    def close(self) -> None:
        """Close the pooled connections; the next call opens new ones."""
        self.database.close()


def _utc_now() -> datetime:
    return datetime.now(UTC)


def open_catalog(url: str, cluster: str, *, clock: Clock = _utc_now) -> Catalog:
    """Open the catalog at a URL (``sqlite:////path`` or ``postgresql://…``) for one cluster's rows.

    Its folder and tables are made on first use, and again where SQLite's file is removed later.

    Raises: CatalogError where it cannot be reached or has another schema version.
    """
    database = open_database(url)
    database.keep_prepared(ensure_schema)
    return Catalog(database, cluster, clock)
