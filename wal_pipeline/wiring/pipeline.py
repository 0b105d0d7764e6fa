"""Turns the settings into the objects that several verbs share: stores, catalog, spool, server, codec."""

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.errors import CatalogError, PostgresError
from wal_pipeline.settings import Settings, load_settings, pin_paths
from wal_pipeline.stores.base import Store
from wal_pipeline.wiring.stores import missing_error, missing_of, missing_settings, open_store

if TYPE_CHECKING:  # each is imported at its first use: a quick command imports no database and no S3 client
    from wal_pipeline.catalog.catalog import Catalog
    from wal_pipeline.codec.encoder import Encoder
    from wal_pipeline.commands.audit import AuditLog
    from wal_pipeline.commands.cluster_identity import ClusterIdentity
    from wal_pipeline.commands.cost.request_counts import RequestLedger
    from wal_pipeline.postgres.server import PostgresServer
    from wal_pipeline.postgres.waldump import CommitReader
    from wal_pipeline.spool import Spool

Server = TypeVar("Server", bound="PostgresServer")
_log = logging.getLogger(__name__)


def open_server(kind: "type[Server]", settings: Settings) -> "Server":
    """Return the server of the settings. Connects at the first question. Raises: SettingsError."""
    return kind(
        settings.conninfo.get_secret_value(), variables=settings.server_variables, folder=settings.conninfo_folder
    )


def open_backup_server(kind: "type[Server]", settings: Settings) -> "Server":
    """Return the server that base backups are taken from, which may be a standby. Raises: SettingsError."""
    given = settings.backup_conninfo.get_secret_value()
    if not given:
        return open_server(kind, settings)
    return kind(given, variables=settings.server_variables, folder=settings.conninfo_folder)


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Pipeline:
    """The objects that commands share. Each is made at its first use."""

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
        """Return only these stores: a restore may have the credentials of one alone.

        Raises: SettingsError, which names every missing setting.
        """
        missing = missing_of(self.settings, names)
        if missing:
            raise missing_error(missing)
        opened = {name: open_store(self.settings, name) for name in names}
        self._opened.extend(opened.values())
        return opened

    @cached_property
    def usable_store_names(self) -> tuple[str, ...]:
        """The names of the configured stores whose settings are all there."""
        return tuple(name for name in self.settings.stores if not missing_settings(self.settings, name))

    @cached_property
    def catalog(self) -> "Catalog":
        """The catalog. Raises: CatalogError."""
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
        """The PostgreSQL server. Connects at the first question."""
        from wal_pipeline.postgres.server import PostgresServer

        return open_server(PostgresServer, self.settings)

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
        from wal_pipeline.commands.cost.request_counts import RequestLedger

        return RequestLedger()

    def record_requests(self) -> None:
        """Add the requests to the stores since the last call to the catalog's counts; a failure only warns.

        Does nothing where the catalog was not used: a restore on a new host needs none, and must not make one.
        """
        if not self._opened or "catalog" not in self.__dict__:
            return
        try:
            self._ledger.record(self._opened, self.catalog, self.clock())
        except CatalogError as error:
            _log.warning("the requests to the stores are not counted: %s", error.message)

    @cached_property
    def encoder(self) -> "Encoder":
        """Compression and encryption of WAL files. Raises: SettingsError."""
        from wal_pipeline.codec.encoder import Encoder

        return Encoder(self.settings.codec, self.settings.codec_level, self.settings.age_recipients)

    @cached_property
    def identities(self) -> list[Any]:
        """The age identities that open encrypted objects; none where the setting is not set. Raises: SettingsError."""
        from wal_pipeline.codec.age import load_identities

        path = self.settings.age_identity_file
        return [] if path is None else load_identities(path)

    @cached_property
    def commits(self) -> "CommitReader":
        """The reader of a segment's commits."""
        from wal_pipeline.postgres.waldump import PgWaldump

        return PgWaldump(bindir=self.settings.pgbindir)

    @cached_property
    def identity(self) -> "ClusterIdentity":
        """The system identifiers whose WAL is accepted."""
        from wal_pipeline.commands.cluster_identity import ClusterIdentity

        return ClusterIdentity(
            self.catalog,
            self._ask_server,
            self.clock,
            fixed=self.settings.system_identifier,
            read_folder=self._read_control_file,
        )

    def newer_major(self) -> int | None:
        """Return the server's major version where it is newer than this program knows: by its word, or PGDATA's."""
        from wal_pipeline.postgres.control_file import read_server_major
        from wal_pipeline.wal.page_header import NEWEST_KNOWN_MAJOR

        major = None
        try:
            major = self.server.facts().major_version
        except PostgresError:
            with suppress(PostgresError):
                major = None if self.settings.pgdata is None else read_server_major(self.settings.pgdata)
        return major if major is not None and major > NEWEST_KNOWN_MAJOR else None

    def ask_system_identifier(self) -> int | None:
        """Ask the server, else PGDATA's control file; None where neither answers."""
        asked = self._ask_server()
        return asked if asked is not None else self._read_control_file()

    def _ask_server(self) -> int | None:
        try:
            return self.server.system_identifier()
        except PostgresError:
            return None

    def _read_control_file(self) -> int | None:
        from wal_pipeline.postgres.control_file import read_control_file

        try:
            return read_control_file(self.settings.pgdata).system_identifier if self.settings.pgdata else None
        except PostgresError:
            return None

    def layout(self, system_identifier: int) -> Layout:
        """Return the object keys of one system identifier."""
        return Layout(self.settings.prefix, self.settings.cluster, system_identifier)


def open_pipeline(env_file: Path | None = None, *, quiet: bool = False) -> Pipeline:
    """Read the settings and return the objects that they describe.

    Warns of names in the file that nothing reads, unless it is to be ``quiet``: PostgreSQL calls the restore command
    for each file. Raises: SettingsError.
    """
    settings = load_settings(env_file=env_file)
    pin_paths(os.environ)
    if not quiet:
        from wal_pipeline.wiring.settings_check import unused_names

        for line in unused_names(settings.names_in_file):
            _log.warning(line)
    return Pipeline(settings)
