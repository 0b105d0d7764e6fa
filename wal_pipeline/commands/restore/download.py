"""Brings a base backup's objects to this machine: in parallel, verified, each from a store that has it whole."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BackupTar, BaseBackupManifest
from wal_pipeline.archive.format.base_backup.tar_cuts import MAX_BYTES_A_VOLUME, Cuts, TarCut, parse_cuts
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.commands.archive_get.wal_source import StoreHealth
from wal_pipeline.commands.backup.objects import open_file
from wal_pipeline.commands.copies.stored_bytes import StoredBytes, require_bytes
from wal_pipeline.commands.restore.byte_pipe import Sink, through
from wal_pipeline.commands.restore.chosen.left_out import LeftOutDatabases
from wal_pipeline.commands.restore.untar import untar, untar_volume
from wal_pipeline.errors import RestoreError, StoreUnavailableError, WalPipelineError
from wal_pipeline.stores.base import Store

_READ_BYTES: Final = 1 << 20
_log = logging.getLogger(__name__)
_LONGEST_STAGED: Final = 4
_ANSWER_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class DownloadFault:
    """A copy that was passed over: the object's key, the store and what was wrong."""

    key: str
    store: str
    message: str


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """How many objects are downloaded at once, and opened where they can be; no more lie in the staging folder."""

    workers: int = _LONGEST_STAGED


class BaseBackupSource:
    """One base backup, from the stores that have it. Calls ``on_bytes`` with each number of bytes that came.

    Each object's SHA-256 is compared before it is opened, and each codec has a checksum of its content. ``hash_tars``:
    the SHA-256 of the opened tar is compared too, for which its volumes are opened one after the other. ``health``
    remembers which stores failed. ``left_out``: volumes that hold only files of these databases are not fetched, and
    no such file is written.
    """

    def __init__(
        self,
        manifest: BaseBackupManifest,
        layout: Layout,
        stores: Sequence[Store],
        *,
        identities: Sequence[Any] = (),
        staging: Path,
        limits: DownloadLimits | None = None,
        hash_tars: bool = True,
        health: StoreHealth | None = None,
        left_out: LeftOutDatabases | None = None,
        on_bytes: Callable[[int], object] = lambda _: None,
        on_fault: Callable[[DownloadFault], object] = lambda _: None,
    ) -> None:
        self._manifest = manifest
        self._layout = layout
        self._stores = stores
        self._identities = identities
        self._staging = staging
        self._limits = limits or DownloadLimits()
        self._hash_tars = hash_tars
        self._health = health or StoreHealth()
        self._left_out = left_out or LeftOutDatabases()
        self._on_bytes = on_bytes
        self._on_fault = on_fault
        self._given_up = threading.Event()
        self._cuts: dict[str, tuple[TarCut | None, ...]] | None = None

    def extract(self, tar: BackupTar, folder: Path) -> None:
        """Download one tar's volumes and extract them into ``folder``.

        At once where it is known within what each begins, else one after the other.

        Raises: RestoreError, CodecError, StoreError.
        """
        cuts = self._cuts_of(tar)
        if cuts is None:
            self._extract_in_order(tar, folder)
            return
        begins = (None, *cuts)
        ends = self._extract_at_once(tar, folder, begins)
        for number, end in ends.items():
            begin = (*begins[1:], None)[number]
            if end != begin:
                raise RestoreError(
                    f"volume '{tar.objects[number].name}' of base backup '{self._manifest.backup_id}' ends with "
                    f"{_place(end)}, expected {_place(begin)}"
                )

    def _cuts_of(self, tar: BackupTar) -> Cuts | None:
        """Return where the tar's volumes begin; None where they must be extracted in order, which always works."""
        item = self._manifest.tar_cuts
        hashed = self._hash_tars and not self._left_out.unneeded(self._manifest.backup_id, tar.name)
        if hashed or item is None or item.content_size_bytes > cuts_limit(self._manifest):
            return None
        if self._cuts is None:
            content = bytearray()
            try:
                self._fetch(item, content.extend)
                self._cuts = parse_cuts(bytes(content), self._manifest)
            except WalPipelineError as error:
                _log.warning("the volumes are taken one after the other: %s", error.message)
                self._cuts = {}
        return self._cuts.get(tar.name)

    def _extract_at_once(self, tar: BackupTar, folder: Path, begins: Cuts) -> dict[int, TarCut | None]:
        """Extract all volumes that are needed; return where each ends, by its number."""
        unneeded = self._left_out.unneeded(self._manifest.backup_id, tar.name)
        wanted = [number for number in range(len(tar.objects)) if number not in unneeded]
        leaves = self._leaves(tar)

        def extract(number: int) -> TarCut | None:
            item = tar.objects[number]

            def produce(sink: Sink) -> None:
                def put(data: bytes) -> None:
                    self._go_on()
                    sink(data)

                self._open(item, path, put)

            with self._staged(item) as path:
                return untar_volume(produce, folder, begins[number], leaves, last=number == len(tar.objects) - 1)

        with self._pool() as pool:
            futures = {number: pool.submit(extract, number) for number in wanted}
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for failed in (future for future in done if future.exception()):
                failed.result()
            return {number: future.result() for number, future in futures.items()}

    def _leaves(self, tar: BackupTar) -> Callable[[str], bool]:
        return lambda name: self._left_out.has(name, tar.name)

    def _extract_in_order(self, tar: BackupTar, folder: Path) -> None:
        """Opening, hashing and writing go on beside each other, each in a thread."""

        def produce(sink: Sink) -> None:
            for item, path in self._downloaded(tar.objects):
                self._open(item, path, sink)

        if not self._hash_tars:
            untar(produce, folder, self._leaves(tar))
            return
        digest = hashlib.sha256()
        untar(through(produce, digest.update, "hash-base-backup"), folder, self._leaves(tar))
        if digest.hexdigest() != tar.sha256:
            raise RestoreError(
                f"tar '{tar.name}' of base backup '{self._manifest.backup_id}' has SHA-256 {digest.hexdigest()}, "
                f"expected {tar.sha256}"
            )

    def write_backup_manifest(self, path: Path) -> None:
        """Put PostgreSQL's own manifest at ``path``. Raises: RestoreError, CodecError, StoreError."""
        with path.open("wb") as file:
            path.chmod(0o600)
            self._fetch(self._manifest.backup_manifest, file.write)

    def _fetch(self, item: BackupObject, sink: Sink) -> None:
        with self._staged(item) as path:
            self._open(item, path, sink)

    @contextmanager
    def _staged(self, item: BackupObject) -> Iterator[Path]:
        """Download one object, verified, into a file that is removed after the block."""
        path = self._download(item)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _open(self, item: BackupObject, path: Path, sink: Sink) -> None:
        with path.open("rb") as stream:
            open_file(stream, self._manifest, item, identities=self._identities, sink=sink)

    def _downloaded(self, items: Sequence[BackupObject]) -> Iterator[tuple[BackupObject, Path]]:
        """Yield the objects in order, each as a verified file that is removed before the next one."""
        with self._pool() as pool:
            waiting: list[tuple[BackupObject, Future[Path]]] = []
            left = iter(items)
            while True:
                while len(waiting) < self._limits.workers and (item := next(left, None)) is not None:
                    waiting.append((item, pool.submit(self._download, item)))
                if not waiting:
                    return
                item, future = waiting.pop(0)
                path = future.result()
                try:
                    yield item, path
                finally:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        pool = ThreadPoolExecutor(self._limits.workers, thread_name_prefix="download")
        try:
            yield pool
        except BaseException:
            self._given_up.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self._given_up.clear()

    def _go_on(self) -> None:
        """End a thread whose work nobody waits for any more."""
        if self._given_up.is_set():
            raise CancelledError

    def _download(self, item: BackupObject) -> Path:
        """Download one object from the first store that has it whole; those that failed lately are asked last.

        A store that does not answer is not waited for while another can be asked. Raises: RestoreError.
        """
        key = self._layout.base_key(self._manifest.backup_id, item.name)
        path = self._staging / f"{self._manifest.backup_id}.{item.name}"
        begun: list[_Attempt] = []
        silent: list[_Attempt] = []
        faults: list[WalPipelineError] = []
        stores = self._health.order(self._stores)
        try:
            for store in stores:
                attempt = self._begin(store, key, item, path)
                begun.append(attempt)
                if store is not stores[-1] and not attempt.wait(_ANSWER_SECONDS, self._go_on):
                    silent.append(attempt)
                    self._pass_over(key, store, _unanswered(store, key))
                elif self._has_it(attempt, key, faults):
                    return attempt.path.replace(path)
            for attempt in silent:
                if self._has_it(attempt, key, faults):
                    return attempt.path.replace(path)
        finally:
            for attempt in begun:
                attempt.give_up()
        reasons = "\n".join(fault.message for fault in faults)
        raise RestoreError(
            f"object '{key}' could not be had from any store:\n{reasons}",
            hint="Restore from an earlier base backup, with a target after its end, if one is kept.",
        )

    def _begin(self, store: Store, key: str, item: BackupObject, path: Path) -> "_Attempt":
        own = path.with_name(f"{path.name}.{store.name}")
        return _Attempt(store, own, lambda attempt: self._download_from(attempt, key, item))

    def _has_it(self, attempt: "_Attempt", key: str, faults: list[WalPipelineError]) -> bool:
        """Wait until an attempt ends, and return whether the object is whole."""
        error = attempt.result(self._go_on)
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

    def _download_from(self, attempt: "_Attempt", key: str, item: BackupObject) -> None:
        store, path = attempt.store, attempt.path
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with store.open(key) as stream:
                attempt.answered.set()
                attempt.go_on()
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
                with open(descriptor, "wb") as file:  # noqa: PTH123 - its own flags
                    while size_bytes <= item.size_bytes and (data := stream.read(_READ_BYTES)):  # no more: another's
                        self._go_on()
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

    def wait(self, seconds: float, go_on: Callable[[], None]) -> bool:
        """Return whether the store answered within so many seconds, in whatever way."""
        deadline = time.monotonic() + seconds
        while not self.answered.wait(min(_POLL_SECONDS, seconds)):
            go_on()
            if time.monotonic() > deadline:
                return False
        return True

    def result(self, go_on: Callable[[], None]) -> BaseException | None:
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


def cuts_limit(manifest: BaseBackupManifest) -> int:
    """Return the most bytes that the object with the cuts may have: it is read into memory."""
    return MAX_BYTES_A_VOLUME * len(manifest.objects)


def _place(cut: TarCut | None) -> str:
    return "a whole member" if cut is None else f"{cut.offset_bytes} of {cut.size_bytes} bytes of '{cut.name}'"
