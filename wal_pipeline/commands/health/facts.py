"""Looks once at the spool, the disks, the server and the catalog, and returns the facts."""

import shutil
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from wal_pipeline.archive.alerts import Alert
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.archive.recovery.reach import RecoveryReach, is_ahead
from wal_pipeline.archive.restore_time.forecast import RestoreForecast
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.drills import DrillRecord
from wal_pipeline.catalog.measures import FailedCopy, StoreLag
from wal_pipeline.catalog.store_states import StoreState
from wal_pipeline.commands.alerts.base_backups import BackupFailure, last_failure
from wal_pipeline.commands.archive_push.skipped_files import stuck_files
from wal_pipeline.commands.health.reach import ServerLook, UnarchivedWal, look_at_reaches
from wal_pipeline.commands.health.restore_times import predict_restores
from wal_pipeline.commands.health.shipping import (
    HeldWal,
    ShipGoal,
    ShippingHealth,
    SlotLook,
    ask_slot,
    look_at_shipping,
)
from wal_pipeline.commands.health.windows import CurrentWindows, FetchText, current_windows, with_waiting
from wal_pipeline.commands.pause import Pause, current_pause
from wal_pipeline.commands.restore_times import read_times
from wal_pipeline.errors import CatalogError, PostgresError, SpoolError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.spool import Spool
from wal_pipeline.text import shown_name

RATE_OVER: Final = timedelta(hours=24)
LAG_OVER: Final = timedelta(hours=1)
MOST_FAILED_COPIES: Final = 20
_SENSOR_KEY: Final = "health.sensor_looked_at"


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The room on one folder's file system."""

    folder: str
    free_bytes: int
    size_bytes: int

    @property
    def free_share(self) -> float:
        """The free share, 0 to 1."""
        return self.free_bytes / self.size_bytes if self.size_bytes else 1.0


@dataclass(frozen=True, slots=True)
class SpoolFacts:
    """The spool and the quarantine folder.

    ``names`` are all files that wait; the oldest of them came at ``oldest_at``. ``stuck``: by name, the reason why a
    file waits for a person. ``error`` and ``quarantine_error``: the reason why a folder could not be read.
    """

    folder: str
    files: int
    size_bytes: int
    growing: int
    names: frozenset[str]
    oldest_name: str | None
    oldest_at: datetime | None
    quarantine_folder: str
    quarantined: tuple[str, ...]
    error: str | None = None
    quarantine_error: str | None = None
    stuck: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """One store: its copies and base backups by the catalog, and the attempts of the last day.

    ``lag`` is that of the last hour's copies.
    """

    store: str
    state: StoreState
    verified_files: int = 0
    wal_bytes: int = 0
    base_backup_bytes: int = 0
    other_files: Mapping[CopyStatus, int] = field(default_factory=dict)
    succeeded: int = 0
    failed: int = 0
    lag: StoreLag | None = None
    base_backups: tuple[BaseBackupCopy, ...] = ()
    last_drill: DrillRecord | None = None

    @property
    def stored_bytes(self) -> int:
        """The bytes of this cluster on the store."""
        return self.wal_bytes + self.base_backup_bytes

    @property
    def success_rate(self) -> float | None:
        """The share of the last day's attempts that succeeded, 0 to 1; None where there was none."""
        tried = self.succeeded + self.failed
        return self.succeeded / tried if tried else None


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """All facts that health, status and metrics judge.

    Dagster's health sensor looked last at ``sensor_looked_at``, None where it never did. ``catalog_error``: the reason
    why the catalog could not be read or written; its facts may then be missing. ``fixed_identifier`` is the system
    identifier that the settings name, None where they name none. ``backup_failure``: why the last base backup failed,
    where none succeeded since. ``reaches``: how far the window of each store (None: of any store) reaches, without an
    entry where nothing can be restored from there. ``shipping`` is that of the open segment. ``restore_times``: how
    long a restore from each store to the end of its window would take on this host.
    """

    cluster: str
    at: datetime
    stores: tuple[StoreFacts, ...]
    windows: CurrentWindows
    alerts: tuple[Alert, ...]
    pause: Pause | None
    files: int
    wal_bytes: int
    failed_copies: tuple[FailedCopy, ...]
    spool: SpoolFacts | None
    disks: tuple[DiskFacts, ...]
    server: ServerLook
    sensor_looked_at: datetime | None = None
    catalog_error: str | None = None
    fixed_identifier: int | None = None
    backup_failure: BackupFailure | None = None
    reaches: Mapping[str | None, RecoveryReach] = field(default_factory=dict)
    shipping: ShippingHealth = field(default_factory=ShippingHealth)
    restore_times: Mapping[str, RestoreForecast] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnopenedCatalog:
    """Stands for a catalog that could not be opened. ``reason`` is the error that opening it raised."""

    reason: CatalogError


@dataclass(frozen=True, slots=True)
class FactSources:
    """The sources of the facts. ``spool``, ``server`` and ``unarchived`` are None where this host has none.

    The server must answer within ``server_seconds``. ``ship_goal`` is None where the open segment is not shipped, and
    ``slot`` where no receiver takes the WAL from the server.
    """

    catalog: Catalog | UnopenedCatalog
    stores: tuple[str, ...]
    clock: Callable[[], datetime]
    spool: Spool | None = None
    server: PostgresServer | None = None
    fetch: FetchText | None = None
    system_identifier: int | None = None
    disk_folders: tuple[Path, ...] = ()
    server_seconds: float = 3.0
    failed_tries: int = 3
    unarchived: UnarchivedWal | None = None
    ship_goal: ShipGoal | None = None
    slot: SlotLook | None = None

    def opened_catalog(self) -> Catalog:
        """Return the catalog. Raises: CatalogError where it could not be opened."""
        if isinstance(self.catalog, UnopenedCatalog):
            raise self.catalog.reason
        return self.catalog

    def cluster_or(self, cluster: str) -> str:
        """Return the cluster's name by the catalog, or ``cluster`` where the catalog could not be opened."""
        return cluster if isinstance(self.catalog, UnopenedCatalog) else self.catalog.cluster


def look_at_everything(sources: FactSources) -> HealthFacts:
    """Look at everything once.

    The spool is listed before and after the catalog is read, so that a file on its way is in one of the two.

    Raises: CatalogError.
    """
    catalog = sources.opened_catalog()
    waiting = _ask(sources)
    before = None if sources.spool is None else count_spool(sources.spool, sources.clock())
    windows = current_windows(catalog, sources.stores, system_identifier=sources.system_identifier, fetch=sources.fetch)
    now = sources.clock()
    after = None if sources.spool is None else count_spool(sources.spool, now)
    spool = _with_stuck(_both(before, after), catalog)
    windows = with_waiting(windows, spool.names - set(spool.stuck) if spool is not None else ())
    wal_bytes, files = catalog.measures.wal_bytes()
    server, slot = waiting()
    paused = current_pause(catalog, now)
    return HealthFacts(
        cluster=catalog.cluster,
        at=now,
        stores=_stores(catalog, sources.stores, now),
        windows=windows,
        alerts=tuple(catalog.alerts.active()),
        pause=paused,
        files=files,
        wal_bytes=wal_bytes,
        failed_copies=tuple(
            catalog.measures.failed_copies(sources.failed_tries, MOST_FAILED_COPIES + 1, _waiting(before))
        ),
        spool=spool,
        disks=_disks(sources.disk_folders),
        server=server,
        sensor_looked_at=sensor_looked_at(catalog),
        fixed_identifier=sources.system_identifier,
        backup_failure=last_failure(catalog),
        reaches=look_at_reaches(windows, server, sources.unarchived, now),
        shipping=_shipping(sources, catalog, paused, server, slot),
        restore_times=predict_restores(windows, read_times(catalog), socket.gethostname()),
    )


def look_without_catalog(sources: FactSources, cluster: str, error: CatalogError) -> HealthFacts:
    """Look only at the spool, the disks and the server, because the catalog does not answer."""
    waiting, now = _ask(sources), sources.clock()
    windows = CurrentWindows(None, sources.stores, None, {}, {}, (), {})
    return HealthFacts(
        cluster=cluster,
        at=now,
        stores=tuple(StoreFacts(store, StoreState(store)) for store in sources.stores),
        windows=windows,
        alerts=(),
        pause=None,
        files=0,
        wal_bytes=0,
        failed_copies=(),
        spool=None if sources.spool is None else count_spool(sources.spool, now),
        disks=_disks(sources.disk_folders),
        server=waiting()[0],
        catalog_error=error.message,
        fixed_identifier=sources.system_identifier,
        shipping=ShippingHealth.not_known(sources.ship_goal),
    )


def _shipping(
    sources: FactSources, catalog: Catalog, paused: Pause | None, server: ServerLook, slot: HeldWal | None
) -> ShippingHealth:
    values, now = catalog.values, sources.clock()
    return look_at_shipping(values, sources.stores, sources.ship_goal, pause=paused, server=server, slot=slot, now=now)


def note_sensor(catalog: Catalog, now: datetime) -> None:
    """Write down that Dagster's health sensor looks now. Raises: CatalogError."""
    catalog.values.put(_SENSOR_KEY, now.isoformat())


def sensor_looked_at(catalog: Catalog) -> datetime | None:
    """Return when Dagster's health sensor looked last; None where it never did. Raises: CatalogError."""
    looked_at = catalog.values.get(_SENSOR_KEY)
    return None if looked_at is None else datetime.fromisoformat(looked_at)


def count_spool(spool: Spool, now: datetime) -> SpoolFacts:
    """List the spool and the quarantine folder; ``error`` says why one cannot be read."""
    try:
        listing = spool.scan(now)
    except SpoolError as error:
        empty = frozenset[str]()
        return SpoolFacts(
            str(spool.folder), 0, 0, 0, empty, None, None, str(spool.quarantine_folder), (), error.message
        )
    quarantined, quarantine_error = _names(spool.quarantine_folder)
    oldest = min(listing.ready, key=lambda file: file.spooled_at, default=None)
    return SpoolFacts(
        folder=str(spool.folder),
        files=len(listing.ready),
        size_bytes=listing.size_bytes,
        growing=len(listing.growing),
        names=frozenset(file.name.name for file in (*listing.ready, *listing.growing)),
        oldest_name=oldest.name.name if oldest else None,
        oldest_at=oldest.spooled_at if oldest else None,
        quarantine_folder=str(spool.quarantine_folder),
        quarantined=quarantined,
        quarantine_error=quarantine_error,
    )


def _names(folder: Path) -> tuple[tuple[str, ...], str | None]:
    try:
        names = (path.name for path in folder.iterdir() if not path.name.startswith("."))
        return tuple(sorted(map(shown_name, names))), None
    except FileNotFoundError:  # the folder is made when the first file is quarantined
        return (), None
    except OSError as error:
        return (), f"quarantine folder '{folder}' cannot be read: {error.strerror}"


def _waiting(spool: SpoolFacts | None) -> frozenset[str] | None:
    """Return the names in the spool; None where they are not known."""
    return None if spool is None or spool.error is not None else spool.names


def _with_stuck(spool: SpoolFacts | None, catalog: Catalog) -> SpoolFacts | None:
    """Add the reasons that the last run gave for leaving files that are still there."""
    if spool is None or not spool.names:
        return spool
    return replace(spool, stuck={name: reason for name, reason in stuck_files(catalog).items() if name in spool.names})


def _both(before: SpoolFacts | None, after: SpoolFacts | None) -> SpoolFacts | None:
    """Return the later look, with the names of both."""
    if before is None or after is None:
        return after
    return replace(after, names=before.names | after.names)


def _disks(folders: Sequence[Path]) -> tuple[DiskFacts, ...]:
    found: dict[int, DiskFacts] = {}
    for folder in folders:
        existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
        if existing is not None:
            usage = shutil.disk_usage(existing)
            found.setdefault(existing.stat().st_dev, DiskFacts(str(folder), usage.free, usage.total))
    return tuple(found.values())


def _stores(catalog: Catalog, stores: Sequence[str], now: datetime) -> tuple[StoreFacts, ...]:
    states, lags = catalog.stores.states(), catalog.measures.lags(now - LAG_OVER)
    totals, events = catalog.files.totals(), catalog.stores.events(now - RATE_OVER)
    backup_bytes, backups = catalog.measures.base_backup_bytes(), catalog.base_backups.copies()
    verified = {total.store: total for total in totals if total.status is CopyStatus.VERIFIED}
    drills = [one for one in catalog.drills.all() if one.finished_at is not None and not is_ahead(one.finished_at, now)]
    return tuple(
        StoreFacts(
            store=store,
            state=states.get(store, StoreState(store)),
            verified_files=verified[store].files if store in verified else 0,
            wal_bytes=verified[store].stored_bytes if store in verified else 0,
            base_backup_bytes=backup_bytes.get(store, 0),
            other_files={
                total.status: total.files
                for total in totals
                if total.store == store and total.status is not CopyStatus.VERIFIED
            },
            succeeded=sum(event.succeeded for event in events if event.store == store),
            failed=sum(event.failed for event in events if event.store == store),
            lag=lags.get(store),
            base_backups=tuple(copy for copy in backups if copy.store == store),
            last_drill=next((drill for drill in reversed(drills) if drill.store == store), None),
        )
        for store in stores
    )


def _ask(sources: FactSources) -> "Callable[[], tuple[ServerLook, HeldWal | None]]":
    """Ask the server, and for its slot, in a thread; a host that does not answer must not delay a screen for long."""
    server, seconds = sources.server, sources.server_seconds
    answers: list[ServerLook] = []
    slots: list[HeldWal | None] = []

    def ask() -> None:
        answers.append(ServerLook() if server is None else _look_at_server(server))
        slots.append(ask_slot(sources.slot))

    if server is None and sources.slot is None:
        return lambda: (ServerLook(), None)
    thread = threading.Thread(target=ask, name="ask-server", daemon=True)
    thread.start()

    def answer() -> tuple[ServerLook, HeldWal | None]:
        thread.join(seconds)
        silent = f"PostgreSQL did not answer within {seconds:g} s"
        no_slot = None if sources.slot is None else HeldWal("", None, silent)
        return answers[0] if answers else ServerLook(error=silent), slots[0] if slots else no_slot

    return answer


def _look_at_server(server: PostgresServer) -> ServerLook:
    try:
        return ServerLook(server.facts())
    except PostgresError as error:
        return ServerLook(error=error.message)
    except Exception as error:  # noqa: BLE001 - a thread's exception would be lost, and another reason told
        return ServerLook(error=f"the server cannot be asked: {type(error).__name__}: {error}")
