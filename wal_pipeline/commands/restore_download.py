"""Bring a base backup's objects to this machine: in parallel, verified, each from a store that has it whole."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.base_backup import BackupObject, BackupTar, BaseBackupManifest
from wal_pipeline.archive.layout import Layout
from wal_pipeline.commands.base_backup_opening import open_file
from wal_pipeline.commands.byte_relay import Sink, through
from wal_pipeline.commands.restore_untar import untar
from wal_pipeline.errors import DamagedCopyError, RestoreError, WalPipelineError
from wal_pipeline.stores.base import Store

_READ_BYTES: Final = 1 << 20
_LONGEST_STAGED: Final = 4


@dataclass(frozen=True, slots=True)
class DownloadFault:
    """A copy that was passed over: the object's key, the store and what was wrong."""

    key: str
    store: str
    message: str


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """How many objects are downloaded at once; so many, opened one after the other, lie in the staging folder."""

    workers: int = _LONGEST_STAGED


class BaseBackupSource:
    """One base backup, from the stores that have it. ``on_bytes`` is told each number of bytes that came.

    Each object's SHA-256 is compared before it is opened. ``hash_tars``: that of the opened tar too, where nothing else
    looks at the files that come of it.
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
        self._on_bytes = on_bytes
        self._on_fault = on_fault

    def extract(self, tar: BackupTar, folder: Path) -> None:
        """Download one tar's volumes and extract them into ``folder``.

        Opening, hashing and writing go on beside each other, each in a thread.

        Raises: RestoreError, CodecError, StoreError.
        """

        def produce(sink: Sink) -> None:
            for item, path in self._downloaded(tar.objects):
                self._open(item, path, sink)

        if not self._hash_tars:
            untar(produce, folder)
            return
        digest = hashlib.sha256()
        untar(through(produce, digest.update, "hash-base-backup"), folder)
        if digest.hexdigest() != tar.sha256:
            raise RestoreError(
                f"tar '{tar.name}' of base backup '{self._manifest.backup_id}' has SHA-256 {digest.hexdigest()}, "
                f"expected {tar.sha256}"
            )

    def write_backup_manifest(self, path: Path) -> None:
        """Put PostgreSQL's own manifest at ``path``. Raises: RestoreError, CodecError, StoreError."""
        item = self._manifest.backup_manifest
        with path.open("wb") as file:
            path.chmod(0o600)
            for found, staged in self._downloaded((item,)):
                self._open(found, staged, file.write)

    def _open(self, item: BackupObject, path: Path, sink: Sink) -> None:
        with path.open("rb") as stream:
            open_file(stream, self._manifest, item, identities=self._identities, sink=sink)

    def _downloaded(self, items: Sequence[BackupObject]) -> Iterator[tuple[BackupObject, Path]]:
        """Yield the objects in order, each as a verified file that goes when the next is asked for."""
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
        finally:
            pool.shutdown(cancel_futures=True)

    def _download(self, item: BackupObject) -> Path:
        """Download one object from the first store that has it whole. Raises: RestoreError."""
        key = self._layout.base_key(self._manifest.backup_id, item.name)
        path = self._staging / f"{self._manifest.backup_id}.{item.name}"
        faults: list[WalPipelineError] = []
        for store in self._stores:
            try:
                self._download_from(store, key, item, path)
            except WalPipelineError as error:
                faults.append(error)
                self._on_fault(DownloadFault(key, store.name, error.message))
            else:
                return path
        reasons = "\n".join(fault.message for fault in faults)
        raise RestoreError(
            f"object '{key}' could not be had from any store:\n{reasons}",
            hint="Restore from an earlier base backup, with a target after its end, if one is kept.",
        )

    def _download_from(self, store: Store, key: str, item: BackupObject, path: Path) -> None:
        digest, size_bytes = hashlib.sha256(), 0
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with store.open(key) as stream, open(descriptor, "wb") as file:  # noqa: PTH123 - its own flags
                while size_bytes <= item.size_bytes and (data := stream.read(_READ_BYTES)):  # no more: it is another's
                    digest.update(data)
                    size_bytes += len(data)
                    file.write(data)
                    self._on_bytes(len(data))
            _compare(store, key, item, size_bytes, digest.hexdigest())
        except BaseException as error:
            self._on_bytes(-size_bytes)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise RestoreError(f"'{path}' cannot be written: {error.strerror}") from error
            raise


def _compare(store: Store, key: str, item: BackupObject, size_bytes: int, sha256: str) -> None:
    if (size_bytes, sha256) != (item.size_bytes, item.sha256):
        raise DamagedCopyError(
            store.name,
            f"object '{key}' has {size_bytes} bytes with SHA-256 {sha256}, "
            f"expected {item.size_bytes} bytes with {item.sha256}",
        )
