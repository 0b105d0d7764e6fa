"""Gives a worker process of a base backup its tasks, and does what it asks for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from wal_pipeline.commands.backup.local.file_worker import Task
from wal_pipeline.commands.backup.local.packed import PackedTaker
from wal_pipeline.commands.backup.local.processes.messages import (
    BackupCall,
    ChunkFollows,
    Done,
    Failed,
    Message,
    StoreBegun,
    StoreEnded,
    Subject,
    WorkerSetup,
)
from wal_pipeline.commands.backup.local.processes.spawned import SpawnedWorker, spawn_worker
from wal_pipeline.commands.backup.local.resume.copier import ObjectCopies
from wal_pipeline.commands.backup.local.source_file import OnRead
from wal_pipeline.commands.backup.upload import Sink
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.errors import BaseBackupError

Calls = Mapping[Subject, Callable[..., object]]


class StoreEncoded(Protocol):
    """Uploads one object of the bytes that ``write`` gives to its sink."""

    def __call__(self, name: str, write: Callable[[Sink], None]) -> StoredBytes: ...


def worker_calls(packed: PackedTaker, copies: ObjectCopies, on_read: OnRead) -> Calls:
    """Say what is done for each call."""
    return {
        Subject.BEGIN: packed.begin,
        Subject.ADD_VOLUME: packed.add_volume,
        Subject.ADD_FILE: packed.add_file,
        Subject.ADD_PARTS: packed.add_parts,
        Subject.ADD_UNCHANGED: packed.add_unchanged,
        Subject.PROVES: copies.proves,
        Subject.COPY: copies.copy,
        Subject.READ: on_read,
    }


class WorkerProcess:
    """One process, which does one task at a time. After an error it is dead."""

    def __init__(self, spawned: SpawnedWorker | None = None) -> None:
        """Take a process that was started ahead, or start one. Raises: OSError where the system lets none start."""
        self._calls: Calls = {}
        self._store: StoreEncoded | None = None
        self._is_stopped = False
        self._spawned = spawn_worker() if spawned is None else spawned
        self._connection = self._spawned.connection

    def begin(self, setup: WorkerSetup, calls: Calls, store: StoreEncoded) -> None:
        """Give it what it must know before its first task. Raises: BaseBackupError where the process is gone."""
        self._calls, self._store = calls, store
        self._send(setup)

    def do(self, task: Task) -> None:
        """Let the process do one task, and do what it asks for meanwhile.

        Raises: what the task raised there or here; BaseBackupError where the process is gone.
        """
        try:
            self._send(task)
            while not isinstance(message := self._received(), Done):
                self._serve(message)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the process; a thread that waits for it goes on and raises. A second call does no harm."""
        self._is_stopped = True
        self._spawned.process.kill()

    def close(self) -> None:
        """Let the process end, and wait for it."""
        self._spawned.end()

    def _serve(self, message: Message) -> None:
        match message:
            case BackupCall(subject, arguments, is_question):
                answer = self._calls[subject](*arguments)
                if is_question:
                    self._send(answer)
            case StoreBegun(name) if self._store is not None:
                self._send(self._store(name, self._pass_on))
            case Failed(error):
                raise error
            case _:
                raise BaseBackupError(f"a worker of the base backup sent {type(message).__name__} out of turn")

    def _pass_on(self, sink: Sink) -> None:
        """Give the bytes of one object to ``sink``."""
        while not isinstance(message := self._received(), StoreEnded):
            if isinstance(message, ChunkFollows):
                with self._talking():
                    chunk = self._connection.recv_bytes()
                sink(chunk)
            else:
                self._serve(message)

    def _received(self) -> Message:
        with self._talking():
            message: Message = self._connection.recv()
        return message

    def _send(self, what: Any) -> None:
        with self._talking():
            self._connection.send(what)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise self._lost() from error

    def _lost(self) -> BaseBackupError:
        if self._is_stopped:
            return BaseBackupError("the base backup was stopped")
        return BaseBackupError(
            f"a worker process of the base backup ended with exit code {self._spawned.wait()}",
            hint="Code -9 is mostly the kernel's, for want of memory (see dmesg): each worker takes about 100 MiB, and "
            "WAL_PIPELINE_BASE_BACKUP_WORKERS sets how many there are. With another code it has said why above.",
        )
