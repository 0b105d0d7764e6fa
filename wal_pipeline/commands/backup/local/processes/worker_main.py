"""Runs in a worker process: reads, checks, compresses and encrypts files, and hands the bytes to the base backup.

The process talks to nobody else: the base backup uploads, and keeps the lists. It ends when its connection does.
"""

import pickle
import sys
import traceback
from collections.abc import Iterable
from multiprocessing.connection import Connection
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.format.base_backup.unfinished import BegunFile
from wal_pipeline.commands.backup.local.file_worker import FileWorker, Task
from wal_pipeline.commands.backup.local.processes.messages import (
    BackupCall,
    ChunkFollows,
    Done,
    Failed,
    StoreBegun,
    StoreEnded,
    Subject,
    WorkerSetup,
)
from wal_pipeline.commands.backup.local.resume.copier import VolumeCopier
from wal_pipeline.commands.backup.local.volume_packer import VolumePacker
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.errors import BaseBackupError, WalPipelineError
from wal_pipeline.host.gc_pause import collect_seldom
from wal_pipeline.postgres.page_checksums import PageFindings

_SENT_BYTES: Final = 512 << 10


class BackupProxy:
    """Stands in a worker for what the base backup keeps: its lists, its objects and its meter."""

    def __init__(self, connection: Connection, setup: WorkerSetup) -> None:
        self._connection = connection
        self._setup = setup
        self._untold_bytes = 0
        self._waiting = bytearray()

    def begin(self) -> int:
        """Return the number of the next volume."""
        return int(self._ask(Subject.BEGIN))

    def add_volume(self, number: int, backup_id: str, item: BackupObject) -> None:
        """Tell of a volume that was handed over for upload."""
        self._tell(Subject.ADD_VOLUME, number, backup_id, item)

    def add_file(self, file: IndexedFile, findings: PageFindings | None = None) -> None:
        """Tell of a file whose parts are all in volumes."""
        self._tell(Subject.ADD_FILE, file, findings)

    def add_parts(self, begun: BegunFile) -> None:
        """Tell of the next parts of a file that is not stored to its end."""
        self._tell(Subject.ADD_PARTS, begun)

    def add_unchanged(self, known: IndexedFile) -> None:
        """Tell of a file that is not stored again."""
        self._tell(Subject.ADD_UNCHANGED, known)

    def proves(self, source_id: str, item: BackupObject) -> bool:
        """Whether every store proves to have this object of another base backup."""
        return bool(self._ask(Subject.PROVES, source_id, item))

    def copy(self, source_id: str, item: BackupObject, name: str) -> BackupObject:
        """Let every store copy an object of another base backup, and return the copy."""
        copied: BackupObject = self._ask(Subject.COPY, source_id, item, name)
        return copied

    def store(self, name: str, chunks: Iterable[bytes]) -> StoredBytes:
        """Encode the chunks of one object here, and hand the bytes over. Raises: as ``chunks`` does."""
        self._connection.send(StoreBegun(name))
        self._waiting.clear()
        self._setup.encoder.encode_here(chunks, self._take_encoded)
        self._send_waiting()
        self._connection.send(StoreEnded())
        stored: StoredBytes = self._connection.recv()
        return stored

    def note_read(self, size_bytes: int) -> None:
        """Count bytes that were read; where the rate is limited wait until more may be read."""
        self._untold_bytes += size_bytes
        if self._untold_bytes >= self._setup.told_bytes:
            self.tell_read()

    def tell_read(self) -> None:
        """Tell of all that was read."""
        size_bytes, self._untold_bytes = self._untold_bytes, 0
        if self._setup.is_paced:
            self._ask(Subject.READ, size_bytes)
        else:
            self._tell(Subject.READ, size_bytes)

    def _take_encoded(self, chunk: bytes) -> None:
        """Keep encoded bytes until they are worth a message: pages of tables compress to a fortieth."""
        self._waiting += chunk
        if len(self._waiting) >= _SENT_BYTES:
            self._send_waiting()

    def _send_waiting(self) -> None:
        if self._waiting:
            self._connection.send(ChunkFollows())
            self._connection.send_bytes(self._waiting)
            self._waiting.clear()

    def _tell(self, subject: Subject, *arguments: object) -> None:
        self._connection.send(BackupCall(subject, arguments, is_question=False))

    def _ask(self, subject: Subject, *arguments: object) -> Any:
        self._connection.send(BackupCall(subject, arguments, is_question=True))
        return self._connection.recv()


def run_worker(connection: Connection) -> None:
    """Do the tasks that come through the connection, until it ends."""
    try:
        setup: WorkerSetup = connection.recv()
        proxy = BackupProxy(connection, setup)
        packer = VolumePacker(
            setup.backup_id,
            setup.started,
            setup.encoder,
            proxy.store,
            proxy,
            setup.volume_size_bytes,
            proxy.note_read,
        )
        worker = FileWorker(VolumeCopier(proxy, packer))
        while True:
            task: Task = connection.recv()
            try:
                worker.do(task)
                proxy.tell_read()
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except BaseException as error:  # noqa: BLE001 - the base backup raises it
                connection.send(Failed(_sendable(error)))
                return
            connection.send(Done())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the base backup has ended, or wants no more


def _sendable(error: BaseException) -> BaseException:
    """Return the error, or one that says the same where it cannot be sent; an unexpected one says where it arose."""
    if not isinstance(error, WalPipelineError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever an exception class does
        return BaseBackupError(f"a worker of the base backup failed: {error!r}")
    return error


if __name__ == "__main__":
    collect_seldom()
    run_worker(Connection(int(sys.argv[1])))
