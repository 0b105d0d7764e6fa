"""Settings into objects: the one place that knows which class serves which setting."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wal_pipeline.archive.layout import Layout
from wal_pipeline.errors import BaseBackupError, CatalogError, PostgresError, SettingsError
from wal_pipeline.settings import Settings, load_settings
from wal_pipeline.stores.base import Store
from wal_pipeline.wiring.stores import missing_settings, open_store

if TYPE_CHECKING:  # each is imported when it is asked for: a quick command imports no database and no S3 client
    from wal_pipeline.catalog.catalog import Catalog
    from wal_pipeline.codec import Encoder
    from wal_pipeline.commands.archive import ArchiveOptions, Archiver
    from wal_pipeline.commands.audit import AuditLog
    from wal_pipeline.commands.base_backup_refill import RefillOutcome
    from wal_pipeline.commands.base_backup_run import BaseBackupTaker
    from wal_pipeline.commands.drill import Drill
    from wal_pipeline.commands.health_facts import FactSources
    from wal_pipeline.commands.health_rules import HealthLimits
    from wal_pipeline.commands.history_fetch import HistoryFetch
    from wal_pipeline.commands.identity import ClusterIdentity
    from wal_pipeline.commands.notifications import Destination
    from wal_pipeline.commands.refill import Refiller
    from wal_pipeline.commands.request_ledger import RequestLedger
    from wal_pipeline.postgres.server import PostgresServer
    from wal_pipeline.postgres.waldump import CommitReader
    from wal_pipeline.spool import Spool

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Pipeline:
    """Everything that a command may need, made when first asked for."""

    settings: Settings
    clock: Callable[[], datetime] = utc_now
    _opened: list[Store] = field(default_factory=list, repr=False)

    @cached_property
    def stores(self) -> dict[str, Store]:
        """The configured stores, by name, in the order of ``WAL_PIPELINE_STORES``. Opens no connection.

        Raises: SettingsError, which names every missing setting of every store.
        """
        return self.open_stores(self.settings.stores)

    def open_stores(self, names: Iterable[str]) -> dict[str, Store]:
        """Return only these stores: a restore may have the credentials of one alone. Raises: SettingsError."""
        missing = [variable for name in names for variable in missing_settings(self.settings, name)]
        if missing:
            raise SettingsError(
                "settings are missing: " + ", ".join(missing),
                hint="Set them in the environment or in .env; WAL_PIPELINE_STORES says which stores are used.",
            )
        opened = {name: open_store(self.settings, name) for name in names}
        self._opened.extend(opened.values())
        return opened

    @cached_property
    def usable_store_names(self) -> tuple[str, ...]:
        """The configured stores whose settings are all there."""
        return tuple(name for name in self.settings.stores if not missing_settings(self.settings, name))

    @cached_property
    def catalog(self) -> "Catalog":
        """The backup records. Raises: CatalogError."""
        from wal_pipeline.wiring.catalog import open_configured_catalog

        return open_configured_catalog(self.settings, self.clock)

    @cached_property
    def spool(self) -> "Spool":
        """The spool. Raises: SettingsError where ``PG_WAL_ARCHIVE_DIR`` is not set."""
        from wal_pipeline.spool import Spool

        settings = self.settings
        return Spool(settings.require_spool_folder(), settings.quarantine(), settings.settle_seconds)

    @cached_property
    def server(self) -> "PostgresServer":
        """The PostgreSQL server; connects when asked something."""
        from wal_pipeline.postgres.server import PostgresServer

        return PostgresServer(self.settings.conninfo.get_secret_value())

    @cached_property
    def audit(self) -> "AuditLog":
        """The audit log, in the state folder."""
        from wal_pipeline.commands.audit import AuditLog

        settings = self.settings
        return AuditLog(
            settings.state_folder, self.clock, max_bytes=settings.audit_max_bytes, files=settings.audit_files
        )

    @cached_property
    def _ledger(self) -> "RequestLedger":
        from wal_pipeline.commands.request_ledger import RequestLedger

        return RequestLedger()

    def record_requests(self) -> None:
        """Add what the stores were asked since the last call to the catalog; a failure only warns.

        Only where the catalog was used: a restore on a new host needs none, and must not make one.
        """
        if not self._opened or "catalog" not in self.__dict__:
            return
        try:
            self._ledger.record(self._opened, self.catalog, self.clock())
        except CatalogError as error:
            _log.warning("the requests to the stores are not counted: %s", error.message)

    def fact_sources(
        self, *, ask_server: bool = True, ask_stores: bool = True, need_catalog: bool = True
    ) -> "FactSources":
        """Return where health, status and metrics look. ``ask_stores``: for timeline histories that are not kept yet.

        Stores whose settings are missing are shown, and never asked. Raises: CatalogError, unless it may be missing.
        """
        from wal_pipeline.commands.health_facts import FactSources

        settings = self.settings
        spool = self.spool if settings.spool_folder is not None else None
        try:
            catalog: Catalog | CatalogError = self.catalog
        except CatalogError as error:
            if need_catalog:
                raise
            catalog = error
        return FactSources(
            catalog=catalog,
            stores=settings.stores,
            clock=self.clock,
            spool=spool,
            server=self.server if ask_server else None,
            fetch=self.fetch_history if ask_stores else None,
            system_identifier=settings.system_identifier,
            disk_folders=(*(() if spool is None else (spool.folder,)), settings.state_folder),
            failed_tries=settings.copy_failed_tries,
        )

    @cached_property
    def fetch_history(self) -> "HistoryFetch":
        """What reads a timeline history file from whichever store has it, within seconds."""
        from wal_pipeline.commands.archive_get import WalSource
        from wal_pipeline.commands.history_fetch import HistoryFetch

        stores: dict[str, Store] = {}

        def sources(system_identifier: int) -> dict[str, WalSource]:
            layout, identities = self.layout(system_identifier), tuple(self.identities)
            if not stores:
                stores.update(self.open_stores(self.usable_store_names))
            return {name: WalSource(layout, (store,), identities) for name, store in stores.items()}

        return HistoryFetch(sources)

    def health_limits(self) -> "HealthLimits":
        """Return from where on a person is told."""
        from wal_pipeline.commands.health_rules import HealthLimits

        settings = self.settings
        return HealthLimits(
            archive_timeout_seconds=settings.archive_timeout_seconds,
            lag_goal_seconds=settings.lag_goal_seconds,
            success_rate_goal=settings.success_rate_goal,
            spool_limit_bytes=settings.spool_limit_bytes,
            spool_near_full_share=settings.spool_near_full_share,
            disk_low_share=settings.disk_low_share,
            store_down_failures=settings.store_down_failures,
            copy_failed_tries=settings.copy_failed_tries,
            base_backup_max_age_hours=settings.base_backup_max_age_hours,
            drill_max_age_days=settings.drill_max_age_days,
            health_interval_seconds=settings.health_interval_seconds,
        )

    def destinations(self) -> "list[Destination]":
        """Return where notifications go. Raises: SettingsError."""
        from wal_pipeline.commands.notifications import apprise_destinations

        return apprise_destinations([url.get_secret_value() for url in self.settings.notification_urls])

    @cached_property
    def encoder(self) -> "Encoder":
        """Compression and encryption of WAL files. Raises: SettingsError."""
        from wal_pipeline.codec import Encoder

        return Encoder(self.settings.codec, self.settings.codec_level, self.settings.age_recipients)

    @cached_property
    def identities(self) -> list[Any]:
        """The age identities that open encrypted objects; none where the setting is not there."""
        from wal_pipeline.codec import load_identities

        path = self.settings.age_identity_file
        return [] if path is None else load_identities(path)

    @cached_property
    def commits(self) -> "CommitReader":
        """What reads the commits of a segment."""
        from wal_pipeline.postgres.waldump import PgWaldump

        return PgWaldump(bindir=self.settings.pgbindir)

    @cached_property
    def identity(self) -> "ClusterIdentity":
        """Which system identifiers are accepted."""
        from wal_pipeline.commands.identity import ClusterIdentity

        return ClusterIdentity(
            self.catalog,
            self._ask_server,
            self.clock,
            fixed=self.settings.system_identifier,
            read_folder=self._read_control_file,
        )

    def ask_system_identifier(self) -> int | None:
        """Ask the server, else PGDATA's control file; None where neither answers."""
        asked = self._ask_server()
        return asked if asked is not None else self._read_control_file()

    def _ask_server(self) -> int | None:
        try:
            return self.server.facts().system_identifier
        except PostgresError:
            return None

    def _read_control_file(self) -> int | None:
        from wal_pipeline.postgres.control_file import read_control_file

        try:
            return read_control_file(self.settings.pgdata).system_identifier if self.settings.pgdata else None
        except PostgresError:
            return None

    def layout(self, system_identifier: int) -> Layout:
        """Return the keys of one system identifier."""
        return Layout(self.settings.prefix, self.settings.cluster, system_identifier)

    def archive_options(self, *, linger_seconds: float) -> "ArchiveOptions":
        """Return how an archiving run goes about it, by the settings."""
        from wal_pipeline.commands.archive import ArchiveOptions

        return ArchiveOptions(
            concurrency=self.settings.concurrency,
            memory_bytes=self.settings.memory_bytes,
            read_back=self.settings.read_back,
            linger_seconds=linger_seconds,
            max_seconds=self.settings.max_run_seconds,
            max_backoff_seconds=self.settings.max_backoff_seconds,
        )

    def archiver(self, *, linger_seconds: float = 0.0) -> "Archiver":
        """Return a new archiving run."""
        from wal_pipeline.commands.archive import Archiver
        from wal_pipeline.commands.prepare import Preparer

        return Archiver(
            spool=self.spool,
            stores=self.stores,
            catalog=self.catalog,
            identity=self.identity,
            preparer=Preparer(self.spool, self.encoder, self.commits),
            layout=self.layout,
            clock=self.clock,
            options=self.archive_options(linger_seconds=linger_seconds),
        )

    def base_backup_taker(self, *, archive: Callable[[], object] | None = None) -> "BaseBackupTaker":
        """Return what takes base backups. ``archive`` brings waiting WAL to the stores where nothing else does so."""
        from wal_pipeline.commands.base_backup import BackupOptions
        from wal_pipeline.commands.base_backup_encoding import StreamEncoder
        from wal_pipeline.commands.base_backup_run import BaseBackupTaker
        from wal_pipeline.postgres.base_backup_server import BackupServer
        from wal_pipeline.postgres.binaries import find_binaries

        settings = self.settings
        program = "pg_basebackup"
        return BaseBackupTaker(
            server=BackupServer(settings.conninfo.get_secret_value()),
            find_program=lambda major: find_binaries(major, programs=(program,), bindir=settings.pgbindir).program(
                program
            ),
            stores=self.stores,
            layout=self.layout,
            encoder=StreamEncoder(
                settings.base_backup_codec,
                settings.base_backup_codec_level,
                threads=settings.base_backup_threads,
                recipients=settings.age_recipients,
            ),
            options=BackupOptions(
                scratch_folder=settings.state_folder / "base-backup",
                staging_folder=settings.base_backup_staging_folder,
                label=settings.base_backup_label,
                fast_checkpoint=settings.base_backup_fast_checkpoint,
                max_rate_kib=settings.base_backup_max_rate_kib,
                read_back=settings.read_back,
                volume_size_bytes=settings.base_backup_volume_mib << 20,
            ),
            catalog=self.catalog,
            clock=self.clock,
            identities=self.identities,
            wal_timeout_seconds=settings.base_backup_wal_timeout_seconds,
            archive=archive,
        )

    def base_backup_refill(self) -> "Callable[[str, str], RefillOutcome]":
        """Return what brings a base backup (by its id) to a store that lacks it."""
        from wal_pipeline.commands.base_backup_refill import refill_store

        recorder = self.base_backup_taker().recorder

        def refill(backup_id: str, destination: str) -> "RefillOutcome":
            layout = self.layout(self._system_identifier_of(backup_id))
            return refill_store(
                backup_id, destination, self.stores, layout, recorder, read_back=self.settings.read_back
            )

        return refill

    def _system_identifier_of(self, backup_id: str) -> int:
        """Return the cluster of a recorded base backup, else the current one. Raises: BaseBackupError."""
        recorded = [found for found in self.catalog.base_backups.all() if found.backup_id == backup_id]
        self.identity.refresh()
        known = recorded[0].system_identifier if recorded else self.identity.current
        if known is None:
            raise BaseBackupError(
                f"which cluster base backup '{backup_id}' belongs to is not known",
                hint="'wal-pipeline catalog rebuild' makes the records again from the stores.",
            )
        return known

    def drills(self, *, seed: int | None = None) -> "Callable[[str], Drill]":
        """Return what makes the drill of a store; ``seed`` draws the same moments again."""
        from wal_pipeline.wiring.drills import drills_of

        return drills_of(self, seed)

    def pause_watch(self) -> Callable[[], bool]:
        """Return what tells a run whether archiving was paused."""
        from wal_pipeline.commands.pause import PauseWatch

        return PauseWatch(self.catalog, self.clock)

    def refiller(self) -> "Refiller":
        """Return what copies files to stores that lack them."""
        from wal_pipeline.commands.prepare import Preparer
        from wal_pipeline.commands.refill import Refiller

        spool = self.spool if self.settings.spool_folder is not None else None
        return Refiller(
            stores=self.stores,
            catalog=self.catalog,
            identity=self.identity,
            layout=self.layout,
            clock=self.clock,
            read_back=self.settings.read_back,
            concurrency=self.settings.concurrency,
            spool=spool,
            preparer=None if spool is None else Preparer(spool, self.encoder, self.commits),
        )


def open_pipeline(env_file: Path | None = None) -> Pipeline:
    """Read the settings and return what they describe. Raises: SettingsError."""
    return Pipeline(load_settings(env_file=env_file))
