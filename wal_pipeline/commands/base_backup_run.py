"""A base backup from beginning to end: taken, recorded, and waited for until each store can restore it."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from wal_pipeline.archive.layout import Layout
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.base_backup import BackupOptions, BaseBackupResult, take_base_backup
from wal_pipeline.commands.base_backup_encoding import StreamEncoder
from wal_pipeline.commands.base_backup_parent import choose_parent, fetch_parent
from wal_pipeline.commands.base_backup_parts import ProgressCallback
from wal_pipeline.commands.base_backup_records import BaseBackupRecorder, StoreOutcome
from wal_pipeline.postgres.base_backup_server import BackupServer
from wal_pipeline.stores.base import Store


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
        self.recorder = BaseBackupRecorder(
            stores, catalog, clock, wal_timeout_seconds=wal_timeout_seconds, archive=archive
        )
        self._clock = clock
        self._identities = identities

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
        layout = self._layout(result.manifest.system_identifier)
        outcomes = self.recorder.settle(result.manifest, layout, [_stored(name, result) for name in self._stores])
        return BackupOutcome(result, outcomes)

    def _take(self, incremental: bool, parent_id: str | None, on_progress: ProgressCallback) -> BaseBackupResult:
        facts = self._server.facts()
        layout, stores = self._layout(facts.system_identifier), list(self._stores.values())
        self._options.scratch_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_old_parents(self._options.scratch_folder, self._clock() - self._options.unfinished_after)
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


def _stored(store: str, result: BaseBackupResult) -> StoreOutcome:
    return StoreOutcome(store, store in result.stored_on, error=result.failures.get(store))


def _remove_old_parents(folder: Path, before: datetime) -> None:
    """Remove the parents' file lists that killed base backups left."""
    for path in folder.glob("parent-*"):
        if path.stat().st_mtime < before.timestamp():
            shutil.rmtree(path, ignore_errors=True)
