"""Collects the volumes and files of a base backup while several workers make them."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from wal_pipeline.archive.format.base_backup.file_index import IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BackupVolume
from wal_pipeline.archive.format.base_backup.unfinished import BegunFile
from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.wal.lsn import Lsn

if TYPE_CHECKING:  # it needs numpy, which a process that reads no pages need not load
    from wal_pipeline.postgres.page_checksums import PageFindings

_SHOWN_BLOCKS: Final = 5  # as many as PostgreSQL names


@dataclass(frozen=True, slots=True)
class PackedNews:
    """Volumes that were handed over, by number, and files all of whose parts lie in such volumes, by path.

    ``begun`` are files that are larger than a volume and not stored to their ends, with their new parts alone.
    """

    volumes: Mapping[int, BackupObject]
    files: Mapping[str, IndexedFile]
    begun: Mapping[str, BegunFile]


class PackedTaker(Protocol):
    """Takes what a worker has packed, as ``PackedVolumes`` does."""

    def begin(self) -> int:
        """Return the number of the next volume."""

    def add_volume(self, number: int, backup_id: str, item: BackupObject) -> None:
        """Take a volume that was handed over for upload."""

    def add_file(self, file: IndexedFile, findings: "PageFindings | None" = None) -> None:
        """Take a file whose parts are all in volumes."""

    def add_parts(self, begun: BegunFile) -> None:
        """Take the next parts of a file that is not stored to its end."""

    def add_unchanged(self, known: IndexedFile) -> None:
        """Take a file that is not stored again."""


@dataclass(slots=True)
class PackedVolumes:
    """The volumes and files of one base backup; every method may be called from any thread.

    Volumes count from 0 in the order in which they were begun. ``unchanged`` are files that lie in volumes of earlier
    base backups, as the parent has them.
    """

    files: dict[str, IndexedFile] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    unchanged: dict[str, IndexedFile] = field(default_factory=dict)
    _volumes: dict[int, BackupVolume] = field(default_factory=dict)
    _suspects: dict[str, "PageFindings"] = field(default_factory=dict)
    _new_volumes: dict[int, BackupObject] = field(default_factory=dict)
    _new_files: dict[str, IndexedFile] = field(default_factory=dict)
    _new_parts: dict[str, BegunFile] = field(default_factory=dict)
    _begun: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> int:
        """Return the number of the next volume."""
        with self._lock:
            self._begun += 1
            return self._begun - 1

    def add_volume(self, number: int, backup_id: str, item: BackupObject) -> None:
        """Take a volume that was handed over for upload."""
        with self._lock:
            self._volumes[number] = BackupVolume(backup_id, item)
            self._new_volumes[number] = item

    def add_file(self, file: IndexedFile, findings: "PageFindings | None" = None) -> None:
        """Take a file whose parts are all in volumes, with what its pages' checksums say; None where they are right."""
        with self._lock:
            self.files[file.path] = self._new_files[file.path] = file
            self._new_parts.pop(file.path, None)
            if findings is not None and findings.damaged_blocks(Lsn(0)):
                self._suspects[file.path] = findings
            if findings is not None and findings.unchecked_bytes:
                self.unchecked.append(file.path)

    def add_parts(self, begun: BegunFile) -> None:
        """Take the next parts of a file that is not stored to its end; their volumes were handed over."""
        with self._lock:
            known = self._new_parts.get(begun.path)
            self._new_parts[begun.path] = begun if known is None else known.with_more(begun)

    def add_unchanged(self, known: IndexedFile) -> None:
        """Take a file that is not stored again; ``known`` is the parent's."""
        with self._lock:
            self.unchanged[known.path] = known

    @property
    def begun(self) -> int:
        """How many volumes were begun."""
        return self._begun

    def volumes(self) -> tuple[BackupVolume, ...]:
        """Return all volumes in the order of their numbers; every one that was begun must be there."""
        return tuple(self._volumes[number] for number in range(self._begun))

    def take_news(self, at_least: int) -> PackedNews | None:
        """Return what was added since the last call; None where there are fewer new volumes than that."""
        with self._lock:
            if len(self._new_volumes) < at_least:
                return None
            told = {
                path: file
                for path, file in self._new_files.items()
                if all(part.volume in self._volumes for part in file.parts)
            }
            news = PackedNews(self._new_volumes, told, self._new_parts)
            self._new_volumes, self._new_parts = {}, {}
            self._new_files = {path: file for path, file in self._new_files.items() if path not in told}
            return news

    def damaged_pages(self, stop_lsn: Lsn) -> tuple[DamagedPages, ...]:
        """Return the pages with wrong checksums, once the base backup has ended at ``stop_lsn``."""
        found = [(path, one.damaged_blocks(stop_lsn)) for path, one in sorted(self._suspects.items())]
        return tuple(DamagedPages(path, blocks[:_SHOWN_BLOCKS], len(blocks)) for path, blocks in found if blocks)
