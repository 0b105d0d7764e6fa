"""A base backup from beginning to end: taken, recorded, and waited for until each store can restore it."""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from wal_pipeline.archive.layout import Layout
from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.base_backup import BackupOptions, BaseBackupResult, take_base_backup
from wal_pipeline.commands.base_backup_encoding import StreamEncoder
from wal_pipeline.commands.base_backup_parent import choose_parent, fetch_parent
from wal_pipeline.commands.base_backup_parts import ProgressCallback
from wal_pipeline.commands.base_backup_wal import VerifiedNames, await_wal
from wal_pipeline.errors import BaseBackupError, CatalogError
from wal_pipeline.postgres.base_backup_server import BackupServer
from wal_pipeline.stores.base import Store
from wal_pipeline.wal.names import WalFileName

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """One store after a base backup: ``stored`` is the copy, ``restorable`` the copy with the WAL that it needs."""

    store: str
    stored: bool
    restorable: bool
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """A base backup that at least one store has, and how each store came out."""

    result: BaseBackupResult
    stores: tuple[StoreOutcome, ...]

    @property
    def complete(self) -> bool:
        """Whether it can be restored from every store."""
        return all(outcome.restorable for outcome in self.stores)


class BaseBackupTaker:
    """Takes base backups of one server onto its stores. The catalog is told; where it cannot be, the copies count."""

    def __init__(
        self,
        *,
        server: BackupServer,
        find_program: Callable[[int], Path],
        stores: Mapping[str, Store],
        layout: Callable[[int], Layout],
        encoder: StreamEncoder,
        options: BackupOptions,
        catalog: Catalog,
        clock: Callable[[], datetime],
        identities: Sequence[Any] = (),
        wal_timeout_seconds: float = 600.0,
        archive: Callable[[], object] | None = None,
    ) -> None:
        """``find_program`` gives pg_basebackup for a major version; ``archive`` brings waiting WAL to the stores."""
        self._server = server
        self._find_program = find_program
        self._stores = stores
        self._layout = layout
        self._encoder = encoder
        self._options = options
        self._catalog = catalog
        self._clock = clock
        self._identities = identities
        self._wal_timeout_seconds = wal_timeout_seconds
        self._archive = archive

    def take(
        self,
        *,
        incremental: bool = False,
        parent_id: str | None = None,
        on_progress: ProgressCallback = lambda _: None,
    ) -> BackupOutcome:
        """Take a base backup, incremental on ``parent_id`` or the newest one that all stores have.

        Raises: BaseBackupError where it failed or no store took it; PostgresError, SettingsError.
        """
        result = self._take(incremental or parent_id is not None, parent_id, on_progress)
        taken = [self._stored(name, result) for name in self._stores]
        self._record(result, taken, restorable_at=None)
        outcomes = [self._restorable(outcome, result) for outcome in taken]
        self._record(result, outcomes, restorable_at=self._clock())
        return BackupOutcome(result, tuple(outcomes))

    def _take(self, incremental: bool, parent_id: str | None, on_progress: ProgressCallback) -> BaseBackupResult:
        facts = self._server.facts()
        layout, stores = self._layout(facts.system_identifier), list(self._stores.values())
        self._options.scratch_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="parent-", dir=self._options.scratch_folder) as folder:
            parent = None
            if incremental:
                chosen = choose_parent(stores, layout, parent_id)
                parent = fetch_parent(stores, layout, chosen, identities=self._identities, folder=Path(folder))
            return take_base_backup(
                self._server,
                self._find_program(facts.major_version),
                stores,
                layout,
                encoder=self._encoder,
                options=self._options,
                parent=parent,
                clock=self._clock,
                on_progress=on_progress,
            )

    @staticmethod
    def _stored(store: str, result: BaseBackupResult) -> StoreOutcome:
        return StoreOutcome(store, store in result.stored_on, restorable=False, error=result.failures.get(store))

    def _restorable(self, outcome: StoreOutcome, result: BaseBackupResult) -> StoreOutcome:
        if not outcome.stored:
            return outcome
        names = catalog_names(self._catalog, result.manifest.system_identifier, outcome.store)
        try:
            await_wal(
                result.manifest,
                outcome.store,
                names,
                timeout_seconds=self._wal_timeout_seconds,
                archive=self._archive,
            )
        except (BaseBackupError, CatalogError) as error:
            return replace(outcome, error=error.message)
        return replace(outcome, restorable=True)

    def _record(
        self, result: BaseBackupResult, outcomes: Sequence[StoreOutcome], restorable_at: datetime | None
    ) -> None:
        copies = [self._copy(result, outcome, restorable_at) for outcome in outcomes]
        try:
            self._catalog.base_backups.record(result.record, copies)
        except CatalogError as error:
            _log.warning("base backup '%s' is stored and not in the catalog: %s", result.manifest.backup_id, error)

    def _copy(self, result: BaseBackupResult, outcome: StoreOutcome, restorable_at: datetime | None) -> BaseBackupCopy:
        manifest = result.manifest
        return BaseBackupCopy(
            backup_id=manifest.backup_id,
            system_identifier=manifest.system_identifier,
            store=outcome.store,
            status=CopyStatus.VERIFIED if outcome.stored else CopyStatus.FAILED,
            objects=len(manifest.objects) + 1 if outcome.stored else 0,
            stored_size_bytes=manifest.stored_size_bytes if outcome.stored else 0,
            restorable_at=restorable_at if outcome.restorable else None,
            last_error=outcome.error,
            verified_at=self._clock() if outcome.stored else None,
        )


def catalog_names(catalog: Catalog, system_identifier: int, store: str) -> VerifiedNames:
    """Ask the catalog which segments have a verified copy on ``store``."""

    def found(names: Sequence[WalFileName]) -> set[str]:
        recorded = catalog.files.copies_of([name.name for name in names])
        return {
            name
            for (identifier, name), copies in recorded.items()
            if identifier == system_identifier and store in copies and copies[store].status is CopyStatus.VERIFIED
        }

    return found
