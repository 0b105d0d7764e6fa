"""Carries out one call of a ``restore_command``: delivers its file, and has the next ones fetched ahead."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wal_pipeline.commands.archive_get.background import start_prefetcher
from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.restore_command import (
    DeliveredFile,
    fetch_and_deliver,
    note_position,
    take_prefetched,
)
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal
from wal_pipeline.commands.archive_get.wal_source import WalUnreachableError
from wal_pipeline.errors import RestoreError, StoreUnavailableError
from wal_pipeline.wal.names import WalFileName


@dataclass(frozen=True, slots=True)
class RestoreCall:
    """One call. ``source`` returns where files are fetched from: a prefetched one is delivered before it is asked for.

    ``folder`` is None where nothing shall be fetched ahead. ``fingerprint`` is of the call and its settings, see
    ``prefetch_client``. ``standby_signal`` is set where an outage counts as absence while this file is there. ``say``
    writes to the server's log.
    """

    source: Callable[[], RecoveryWal]
    folder: PrefetchFolder | None
    fingerprint: str
    retry_seconds: float
    standby_signal: Path | None
    say: Callable[[str], None]

    def deliver(self, name: WalFileName, destination: Path) -> bool:
        """Put the file at ``destination``; False where every store answered that it has none.

        Raises: WalUnreachableError, SettingsError, RestoreError, StoreError: never taken for the archive's end.
        """
        folder = self._trusted_folder()
        delivery = take_prefetched(folder, name, destination)
        if delivery is None:
            try:
                delivery = self._fetch(name, destination)
            except (WalUnreachableError, StoreUnavailableError) as error:
                if not (self._is_standby() and error.may_pass):
                    raise
                self.say(f"{error.message}\nThis is a standby: PostgreSQL asks again.")
                return False
        if folder is not None:
            self._fetch_ahead(folder, name, delivery)
        return delivery is not None

    def _fetch(self, name: WalFileName, destination: Path) -> DeliveredFile | None:
        source = self.source()
        delivery = fetch_and_deliver(lambda: source.fetch(name), destination, self.retry_seconds, self.say)
        for note in source.end_notes.take(name) if delivery is None else ():
            self.say(note)
        if delivery is not None:
            for note in delivery.notes:
                self.say(f"'{name.name}' was taken from {delivery.store}: {note}")
        return delivery

    def _fetch_ahead(self, folder: PrefetchFolder, name: WalFileName, delivery: DeliveredFile | None) -> None:
        try:
            if note_position(folder, name, delivery):
                start_prefetcher(folder, self.source, self.fingerprint)
        except OSError as error:
            self.say(f"cannot fetch ahead in '{error.filename}': {error.strerror}")

    def _trusted_folder(self) -> PrefetchFolder | None:
        """Return the folder; None, and a word in the log, where another user could have put files into it."""
        if self.folder is None:
            return None
        try:
            self.folder.check(os.geteuid())
        except RestoreError as error:
            self.say(f"nothing is fetched ahead: {error}")
            return None
        return self.folder

    def _is_standby(self) -> bool:
        """Whether the server is a standby, and no recovery that ends where the archive does (xlogrecovery.c)."""
        return self.standby_signal is not None and self.standby_signal.exists()
