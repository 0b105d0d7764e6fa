"""Defines the events of an archiving run: one value for each thing that happened to a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wal_pipeline.archive.records import Copy, WalFile


class QuarantineReason(StrEnum):
    """Why a file was moved out of the spool without being archived."""

    NOT_WHOLE = "not_whole"
    OTHER_CONTENT = "other_content"
    WRONG_CLUSTER = "wrong_cluster"
    NOT_VALID = "not_valid"


@dataclass(frozen=True, slots=True)
class FilesWaiting:
    """Files that were seen in the spool for the first time in this run, in archiving order."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CopyVerified:
    """A store has a verified copy. ``is_new``: made or adopted now; else it was recorded by an earlier run.

    ``seconds`` are the file's timed steps: ``checksum``, ``compress`` and ``store on <store>``; of a new copy also
    ``record``, what its record in the catalog took.
    """

    file: WalFile
    copy: Copy
    is_new: bool
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FileReleased:
    """Every store holds the file, and it was removed from the spool."""

    file: WalFile
    copies: tuple[Copy, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CopyFailed:
    """A file could not be stored on a store now; it stays in the spool and is tried again.

    ``tries``: how often this copy was tried; ``store_failures``: how often the store failed since it last took a file;
    ``hint``: what a person can do.
    """

    name: str
    store: str
    message: str
    tries: int = 1
    store_failures: int = 0
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class FileQuarantined:
    """A file may not be archived and was moved to ``path``."""

    name: str
    reason: QuarantineReason
    message: str
    path: Path


@dataclass(frozen=True, slots=True)
class FileSkipped:
    """A file stays in the spool for now: it may still be growing, or its cluster is not known yet.

    ``needs_help``: it cannot be read, moved or removed, and stays until a person mends that.
    """

    name: str
    message: str
    needs_help: bool = False


@dataclass(frozen=True, slots=True)
class SpoolEmptied:
    """Nothing waits any more, and the run lingers for the next file."""


ArchiveEvent = FilesWaiting | CopyVerified | FileReleased | CopyFailed | FileQuarantined | FileSkipped | SpoolEmptied
