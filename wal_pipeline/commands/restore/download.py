"""Brings a base backup's objects to this machine: in parallel, verified, each from a store that has it whole."""

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BackupTar, BaseBackupManifest
from wal_pipeline.archive.format.base_backup.tar_cuts import (
    MAX_BYTES_A_VOLUME,
    Cuts,
    TarCut,
    parse_cuts,
)
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.commands.archive_get.wal_source import StoreHealth
from wal_pipeline.commands.backup.objects import open_file
from wal_pipeline.commands.restore.byte_pipe import Sink, through
from wal_pipeline.commands.restore.chosen.left_out import LeftOutDatabases
from wal_pipeline.commands.restore.files.fetch import DownloadFault, ObjectFetcher
from wal_pipeline.commands.restore.files.tars import UnwantedFiles, volumes_of_right_files
from wal_pipeline.commands.restore.untar import untar, untar_volume
from wal_pipeline.errors import RestoreError, WalPipelineError
from wal_pipeline.stores.base import Store

_log = logging.getLogger(__name__)
_LONGEST_STAGED: Final = 4


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
        left_out: UnwantedFiles | None = None,
        on_bytes: Callable[[int], object] = lambda _: None,
        on_fault: Callable[[DownloadFault], object] = lambda _: None,
    ) -> None:
        self._manifest = manifest
        self._identities = identities
        self._limits = limits or DownloadLimits()
        self._hash_tars = hash_tars
        self._left_out = left_out or LeftOutDatabases()
        self._fetcher = ObjectFetcher(
            layout, stores, staging=staging, health=health, on_bytes=on_bytes, on_fault=on_fault
        )
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

    def volumes_of_right_files(self, right: Collection[str]) -> dict[tuple[str, str], frozenset[int]]:
        """Return the volumes that hold nothing but files that are ``right`` already, by base backup and tar.

        None of a tar of which nobody knows within which file each volume begins.
        """
        found: dict[tuple[str, str], frozenset[int]] = {}
        for tar in self._manifest.tars:
            cuts = self._cuts_of(tar)
            if cuts is not None:
                found[self._manifest.backup_id, tar.name] = volumes_of_right_files(tar, cuts, right)
        return found

    def write_backup_manifest(self, path: Path) -> None:
        """Put PostgreSQL's own manifest at ``path``. Raises: RestoreError, CodecError, StoreError."""
        with path.open("wb") as file:
            path.chmod(0o600)
            self._fetch(self._manifest.backup_manifest, file.write)

    def _fetch(self, item: BackupObject, sink: Sink) -> None:
        with self._staged(item) as path:
            self._open(item, path, sink)

    def _staged(self, item: BackupObject) -> AbstractContextManager[Path]:
        """Download one object, verified, into a file that is removed after the block."""
        return self._fetcher.fetched(self._manifest.backup_id, item, self._go_on)

    def _download(self, item: BackupObject) -> Path:
        return self._fetcher.download(self._manifest.backup_id, item, self._go_on)

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


def cuts_limit(manifest: BaseBackupManifest) -> int:
    """Return the most bytes that the object with the cuts may have: it is read into memory."""
    return MAX_BYTES_A_VOLUME * len(manifest.objects)


def _place(cut: TarCut | None) -> str:
    return "a whole member" if cut is None else f"{cut.offset_bytes} of {cut.size_bytes} bytes of '{cut.name}'"
