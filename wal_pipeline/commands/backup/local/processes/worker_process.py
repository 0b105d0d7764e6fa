"""Starts a worker process of a base backup, gives it tasks, and does what it asks for."""

import multiprocessing
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

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
from wal_pipeline.commands.backup.local.processes.worker_main import run_worker
from wal_pipeline.commands.backup.local.resume.copier import ObjectCopies
from wal_pipeline.commands.backup.local.source_file import OnRead
from wal_pipeline.commands.backup.upload import Sink
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.errors import BaseBackupError

_END_SECONDS: Final = 5.0
_LOST: Final = (EOFError, BrokenPipeError, ConnectionResetError)
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

    def __init__(self, setup: WorkerSetup, calls: Calls, store: StoreEncoded) -> None:
        """Start it. A fork of this process would inherit locks that other threads hold, so it is a fresh one.

        Raises: OSError where the system does not let a process start.
        """
        self._calls = calls
        self._store = store
        self._is_stopped = False
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        try:
            self._process = context.Process(target=run_worker, args=(theirs,), name="base-backup", daemon=True)
            self._process.start()
        except OSError:
            self._connection.close()
            raise
        finally:
            theirs.close()
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
        self._process.kill()

    def close(self) -> None:
        """Let the process end, and wait for it."""
        self._connection.close()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _serve(self, message: Message) -> None:
        match message:
            case BackupCall(subject, arguments, is_question):
                answer = self._calls[subject](*arguments)
                if is_question:
                    self._send(answer)
            case StoreBegun(name):
                self._send(self._store(name, self._pass_on))
            case Failed(error):
                raise error
            case _:
                raise BaseBackupError(f"a worker of the base backup sent {type(message).__name__} out of turn")

    def _pass_on(self, sink: Sink) -> None:
        """Give the bytes of one object to ``sink``."""
        while not isinstance(message := self._received(), StoreEnded):
            if isinstance(message, ChunkFollows):
                sink(self._received_chunk())
            else:
                self._serve(message)

    def _received_chunk(self) -> bytes:
        try:
            return self._connection.recv_bytes()
        except _LOST as error:
            raise self._lost() from error

    def _received(self) -> Message:
        try:
            message: Message = self._connection.recv()
        except _LOST as error:
            raise self._lost() from error
        return message

    def _send(self, what: Any) -> None:
        try:
            self._connection.send(what)
        except _LOST as error:
            raise self._lost() from error

    def _lost(self) -> BaseBackupError:
        if self._is_stopped:
            return BaseBackupError("the base backup was stopped")
        self._process.join(_END_SECONDS)
        return BaseBackupError(
            f"a worker process of the base backup ended with exit code {self._process.exitcode}",
            hint="Code -9 is mostly the kernel's, for want of memory (see dmesg): each worker takes about 100 MiB, and "
            "WAL_PIPELINE_BASE_BACKUP_WORKERS sets how many there are.",
        )
