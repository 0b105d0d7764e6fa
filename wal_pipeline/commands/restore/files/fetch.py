"""Fetches single objects of base backups: verified, and each from a store that has it whole."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.commands.archive_get.wal_source import StoreHealth
from wal_pipeline.commands.copies.stored_bytes import StoredBytes, require_bytes
from wal_pipeline.errors import RestoreError, StoreUnavailableError, WalPipelineError
from wal_pipeline.stores.base import Store

GoOn = Callable[[], None]
_READ_BYTES: Final = 1 << 20
_ANSWER_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2


def _nothing() -> None:
    """Nobody gives the work up."""


@dataclass(frozen=True, slots=True)
class DownloadFault:
    """A copy that was passed over: the object's key, the store and what was wrong."""

    key: str
    store: str
    message: str


class ObjectFetcher:
    """Fetches objects into files of the folder ``staging``. Many threads may use it.

    Each object's SHA-256 is compared. Calls ``on_bytes`` with each number of bytes that came, negative where a download
    starts over, and ``on_fault`` for each copy that is passed over. ``health`` remembers which stores failed.
    """

    def __init__(
        self,
        layout: Layout,
        stores: Sequence[Store],
        *,
        staging: Path,
        health: StoreHealth | None = None,
        on_bytes: Callable[[int], object] = lambda _: None,
        on_fault: Callable[[DownloadFault], object] = lambda _: None,
    ) -> None:
        self._layout = layout
        self._stores = stores
        self._staging = staging
        self._health = health or StoreHealth()
        self._on_bytes = on_bytes
        self._on_fault = on_fault

    @contextmanager
    def fetched(self, backup_id: str, item: BackupObject, go_on: GoOn = _nothing) -> Iterator[Path]:
        """Download one object into a file that is removed after the block. Raises: as ``download``."""
        path = self.download(backup_id, item, go_on)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def download(self, backup_id: str, item: BackupObject, go_on: GoOn = _nothing) -> Path:
        """Download one object of a base backup, from the first store that has it whole; return its file.

        Those stores that failed lately are asked last. One that does not answer is not waited for while another can be
        asked. Raises: RestoreError.
        """
        key = self._layout.base_key(backup_id, item.name)
        path = self._staging / f"{backup_id}.{item.name}"
        begun: list[_Attempt] = []
        silent: list[_Attempt] = []
        faults: list[WalPipelineError] = []
        stores = self._health.order(self._stores)
        try:
            for store in stores:
                attempt = self._begin(store, key, item, path, go_on)
                begun.append(attempt)
                if store is not stores[-1] and not attempt.wait(_ANSWER_SECONDS, go_on):
                    silent.append(attempt)
                    self._pass_over(key, store, _unanswered(store, key))
                elif self._has_it(attempt, key, faults, go_on):
                    return attempt.path.replace(path)
            for attempt in silent:
                if self._has_it(attempt, key, faults, go_on):
                    return attempt.path.replace(path)
        finally:
            for attempt in begun:
                attempt.give_up()
        reasons = "\n".join(fault.message for fault in faults)
        raise RestoreError(
            f"object '{key}' could not be had from any store:\n{reasons}",
            hint="Restore from an earlier base backup, with a target after its end, if one is kept.",
        )

    def _begin(self, store: Store, key: str, item: BackupObject, path: Path, go_on: GoOn) -> "_Attempt":
        own = path.with_name(f"{path.name}.{store.name}")
        return _Attempt(store, own, lambda attempt: self._download_from(attempt, key, item, go_on))

    def _has_it(self, attempt: "_Attempt", key: str, faults: list[WalPipelineError], go_on: GoOn) -> bool:
        """Wait until an attempt ends, and return whether the object is whole."""
        error = attempt.result(go_on)
        if error is None:
            return True
        if not isinstance(error, WalPipelineError):
            raise error
        faults.append(error)
        self._pass_over(key, attempt.store, error)
        return False

    def _pass_over(self, key: str, store: Store, error: WalPipelineError) -> None:
        if isinstance(error, StoreUnavailableError):
            self._health.failed(store)
        self._on_fault(DownloadFault(key, store.name, error.message))

    def _download_from(self, attempt: "_Attempt", key: str, item: BackupObject, go_on: GoOn) -> None:
        store, path = attempt.store, attempt.path
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with store.open(key) as stream:
                attempt.answered.set()
                attempt.go_on()
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
                with open(descriptor, "wb") as file:  # noqa: PTH123 - its own flags
                    while size_bytes <= item.size_bytes and (data := stream.read(_READ_BYTES)):  # no more: another's
                        go_on()
                        attempt.go_on()
                        digest.update(data)
                        size_bytes += len(data)
                        file.write(data)
                        self._on_bytes(len(data))
            require_bytes(store, key, StoredBytes(size_bytes, digest.hexdigest()), item)
        except BaseException as error:
            self._on_bytes(-size_bytes)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise RestoreError(f"'{path}' cannot be written: {error.strerror}") from error
            raise


class _Attempt:
    """One object on its way from one store, in a thread that nobody has to wait for."""

    def __init__(self, store: Store, path: Path, download: Callable[["_Attempt"], None]) -> None:
        self.store = store
        self.path = path
        self.answered = threading.Event()
        self._given_up = threading.Event()
        self._error: BaseException | None = None
        self._download = download
        self._thread = threading.Thread(target=self._run, name=f"download-{store.name}", daemon=True)
        self._thread.start()

    def wait(self, seconds: float, go_on: GoOn) -> bool:
        """Return whether the store answered within so many seconds, in whatever way."""
        deadline = time.monotonic() + seconds
        while not self.answered.wait(min(_POLL_SECONDS, seconds)):
            go_on()
            if time.monotonic() > deadline:
                return False
        return True

    def result(self, go_on: GoOn) -> BaseException | None:
        """Return the error with which it ended; None where the object is at ``path``."""
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
            go_on()
        return self._error

    def give_up(self) -> None:
        """End the thread, and remove its file if nobody took it. One that the store has answered ends at once."""
        self._given_up.set()
        if self.answered.is_set():
            self._thread.join(_ANSWER_SECONDS)
        if not self._thread.is_alive():
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def go_on(self) -> None:
        """End the thread where nobody needs the object from it any more."""
        if self._given_up.is_set():
            raise CancelledError

    def _run(self) -> None:
        try:
            self._download(self)
        except BaseException as error:  # noqa: BLE001 - it is raised where the object is waited for
            self._error = error
        finally:
            self.answered.set()


def _unanswered(store: Store, key: str) -> StoreUnavailableError:
    return StoreUnavailableError(store.name, f"object '{key}' was not answered within {_ANSWER_SECONDS:g} s")
