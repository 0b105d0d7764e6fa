"""Defines what a base backup and its worker processes say to each other.

The base backup sends a ``WorkerSetup`` and then tasks (file_worker.py), one after the other. For each task the worker
sends any number of these messages, and ``Done`` or ``Failed`` at its end.
"""

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.postgres.started_backup import StartedBackup


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Tells a worker, before its first task, all that it must know.

    It tells of what it reads after so many bytes (``told_bytes``), and with ``is_paced`` waits each time until it may
    go on.
    """

    backup_id: str
    started: StartedBackup
    encoder: StreamEncoder
    volume_size_bytes: int
    told_bytes: int
    is_paced: bool


class Subject(StrEnum):
    """Names what a call is about; ``worker_calls`` says what is done."""

    BEGIN = auto()
    ADD_VOLUME = auto()
    ADD_FILE = auto()
    ADD_PARTS = auto()
    ADD_UNCHANGED = auto()
    PROVES = auto()
    COPY = auto()
    READ = auto()


@dataclass(frozen=True, slots=True)
class BackupCall:
    """Something that the base backup must do. With ``is_question`` the worker waits for what it returns."""

    subject: Subject
    arguments: tuple[Any, ...]
    is_question: bool


@dataclass(frozen=True, slots=True)
class StoreBegun:
    """An object's encoded bytes follow, each chunk behind a ``ChunkFollows``. Calls may come between them."""

    name: str


@dataclass(frozen=True, slots=True)
class ChunkFollows:
    """The next message is a chunk as it is, without pickling."""


@dataclass(frozen=True, slots=True)
class StoreEnded:
    """The object's bytes are at their end: the worker waits for its ``StoredBytes``."""


@dataclass(frozen=True, slots=True)
class Done:
    """The task is done."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task has failed, and the worker ends."""

    error: BaseException


Message = BackupCall | StoreBegun | ChunkFollows | StoreEnded | Done | Failed
