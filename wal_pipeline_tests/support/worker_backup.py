"""Packs files onto a folder store with workers of this process or of others, and opens what they made."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.base_backup.manifest import BackupVolume
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_decoder import StoredStream, StreamOpener, open_stream
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.file_worker import FileWorker
from wal_pipeline.commands.backup.local.packed import PackedVolumes
from wal_pipeline.commands.backup.local.processes.messages import WorkerSetup
from wal_pipeline.commands.backup.local.processes.worker_process import WorkerProcess, worker_calls
from wal_pipeline.commands.backup.local.processes.workers import FileWorkers
from wal_pipeline.commands.backup.local.resume.copier import VolumeCopier
from wal_pipeline.commands.backup.local.stored_objects import StoredObjects
from wal_pipeline.commands.backup.local.volume_packer import VolumePacker
from wal_pipeline.commands.backup.part_uploader import UploadLimits
from wal_pipeline.commands.backup.upload import BackupUpload
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.postgres.started_backup import StartedBackup
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.archive_scene import folder_store
from wal_pipeline_tests.support.cut_backups import PAGE, page
from wal_pipeline_tests.support.manifests import LAYOUT
from wal_pipeline_tests.support.packed_folder import joined_files

_MIB = 1 << 20
_MODIFIED_NS = 1_700_000_000_000_000_000
STARTED = StartedBackup(
    Lsn.parse("0/5000028"), 1, datetime(2026, 11, 22, tzinfo=UTC), 18, 7, False, PAGE, 131072, has_checksums=False
)


@dataclass
class WorkerBackup:
    """One base backup of files below ``folder / pgdata`` without a server, onto a store in ``folder / take``."""

    folder: Path
    take: str = "20261122T000000Z-000000010000000000000005"
    encoder: StreamEncoder = field(default_factory=lambda: StreamEncoder(Codec.ZSTD))
    identities: Sequence[Any] = ()
    started: StartedBackup = STARTED
    volume_size_bytes: int = _MIB
    is_paced: bool = False
    packed: PackedVolumes = field(default_factory=PackedVolumes)
    read: list[int] = field(default_factory=list)

    @property
    def store(self) -> LocalFolderStore:
        """The store, in a folder."""
        return folder_store("r2", self.folder / "store")

    def file(self, path: str, pages: int, lsn: Lsn = Lsn(0x1000028)) -> DataFile:  # noqa: B008 - a constant
        """Make a relation of random pages that were changed at ``lsn``, and return it as the walk finds it."""
        source = self.folder / "pgdata" / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(b"".join(page(number, lsn) for number in range(pages)))
        set_time(source)
        size_bytes, database = pages * PAGE, int(path.split("/")[1])
        return DataFile(
            path, source, size_bytes, _MODIFIED_NS, 0o600, is_folder=False, relation=True, database=database
        )

    @contextmanager
    def workers(
        self,
        processes: int,
        *,
        act: Callable[[StoredObjects], StoredObjects] = lambda one: one,
        start: Callable[[], WorkerProcess] = WorkerProcess,
    ) -> Iterator[FileWorkers]:
        """Yield so many worker processes, or with 0 threads of this one. All is uploaded at the end.

        ``act`` stands before the objects, ``start`` starts a process.
        """
        limits = UploadLimits(part_size_bytes=_MIB, tries=1)
        with BackupUpload([self.store], limits) as upload:
            objects = act(StoredObjects(self.take, LAYOUT, self.encoder, upload))
            packer = VolumePacker(
                self.take,
                self.started,
                self.encoder,
                objects.store,
                self.packed,
                self.volume_size_bytes,
                self.read.append,
            )
            setup = WorkerSetup(self.take, self.started, self.encoder, self.volume_size_bytes, 1 << 20, self.is_paced)
            calls = worker_calls(self.packed, objects, self.read.append)
            with FileWorkers(processes, 2, start) as workers:
                workers.begin(FileWorker(VolumeCopier(objects, packer)), setup, calls, objects.store_encoded)
                yield workers
            upload.wait()

    def run(self, tasks: Sequence[Any], processes: int) -> None:
        """Do all tasks and upload what they make. Raises: what a worker raised."""
        with self.workers(processes) as workers:
            workers.run(tasks, stop=lambda: None, tick=lambda: None)

    def contents(self) -> dict[str, bytes]:
        """What the volumes of the store hold, with parts joined."""
        return joined_files(map(self._opened, self.packed.volumes()))

    def _opened(self, volume: BackupVolume) -> bytes:
        opened = io.BytesIO()
        with self.store.open_described(LAYOUT.base_key(volume.backup_id, volume.item.name)) as (_, stream):
            opener = StreamOpener(self.encoder.codec, volume.item, opened.write)
            open_stream(StoredStream(stream), opener, self.encoder.encrypted, self.identities)
        return opened.getvalue()

    def later(self, take: str) -> "WorkerBackup":
        """Another base backup of the same files onto the same store."""
        return replace(self, take=take, packed=PackedVolumes(), read=[])


def set_time(source: Path) -> None:
    """Give a file the time that all files of these scenes have."""
    os.utime(source, ns=(_MODIFIED_NS, _MODIFIED_NS))
