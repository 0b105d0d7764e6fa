"""Tells people of a base backup while it is taken: that it failed, that it waits, or that it has faults."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.alerts.base_backups import (
    SUBJECT,
    failure_observations,
    forget_failure,
    keep_failure,
    page_observations,
    wait_observation,
    warning_observations,
)
from wal_pipeline.commands.backup.session import BackupProgress, ProgressCallback
from wal_pipeline.errors import (
    BaseBackupError,
    BaseBackupRunningError,
    CatalogError,
    PostgresError,
    StoreError,
    WalPipelineError,
)

_log = logging.getLogger(__name__)


class BackupAlarms:
    """Writes the alerts of one base backup. A catalog that fails never ends a base backup."""

    def __init__(self, catalog: Catalog, clock: Callable[[], datetime]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._waits = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep the error that ends the block as the last failure; another running base backup is none."""
        try:
            yield
        except BaseBackupRunningError:
            raise
        except (BaseBackupError, PostgresError, StoreError) as error:
            self._try(partial(self._failed, error))
            raise
        finally:
            self._end_wait()

    def taken(self, backup: BaseBackup) -> None:
        """Open the alerts about a base backup that was taken, and end those that it makes moot."""

        def tell() -> None:
            now = self._clock()
            forget_failure(self._catalog)
            self._catalog.alerts.resolve(AlertKind.BASE_BACKUP_FAILED, SUBJECT, now)
            self._catalog.alerts.settle(AlertKind.PAGES_DAMAGED, page_observations(backup), now)
            self._catalog.alerts.settle(AlertKind.BASE_BACKUP_WARNING, warning_observations(backup), now)

        self._try(tell)

    def told(self, on_progress: ProgressCallback) -> ProgressCallback:
        """Return the callback that also opens an alert while PostgreSQL waits for its archiver."""

        def tell(progress: BackupProgress) -> None:
            if progress.wait is not None and progress.wait.is_archiver:
                text = progress.wait.text
                self._try(lambda: self._wait(text))
            elif progress.wait is None:
                self._end_wait()
            on_progress(progress)

        return tell

    def _failed(self, error: WalPipelineError) -> None:
        now = self._clock()
        for observation in failure_observations(keep_failure(self._catalog, error, now)):
            self._catalog.alerts.observe(AlertKind.BASE_BACKUP_FAILED, observation, now)

    def _wait(self, text: str) -> None:
        self._waits = True
        now = self._clock()
        self._catalog.alerts.observe(AlertKind.BASE_BACKUP_WAITING, wait_observation(text, now), now)

    def _end_wait(self) -> None:
        if self._waits:
            self._waits = False
            self._try(lambda: self._catalog.alerts.resolve(AlertKind.BASE_BACKUP_WAITING, SUBJECT, self._clock()))

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except CatalogError as error:
            _log.warning("an alert about a base backup is not written: %s", error.message)
