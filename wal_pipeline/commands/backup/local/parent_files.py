"""Finds the files that did not change since the parent of an incremental base backup: they are not stored again.

A file is referred to where its size and time are those of the parent's index, its time is well before it was read
then, no page in it is newer than the start of that reading, and its content still has the same checksum. It is read for
the latter two, and neither compressed nor sent. Where a person trusts sizes and times, it is not read.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.records import FileComparison
from wal_pipeline.commands.backup.local.source_file import OnRead, open_source, unchanged_pages
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.postgres.started_backup import StartedBackup
from wal_pipeline.wal.lsn import Lsn

_SMALLEST_BYTES: Final = 64 << 10  # what is smaller is stored again: a volume of crumbs would be kept for it
_SETTLED_NS: Final = 2_000_000_000  # the coarsest file system's time, so that a change is never hidden by it
_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as the parent has it, which read it after ``start_lsn``."""

    file: IndexedFile
    start_lsn: Lsn
    compare: FileComparison = FileComparison.CONTENT

    def is_unchanged(self, file: DataFile, started: StartedBackup, on_read: OnRead) -> bool:
        """Say whether a file is the parent's, by its content or its size and time of now.

        Raises: BaseBackupError where it cannot be read.
        """
        if self.compare is FileComparison.TIME:
            source = open_source(file, started)
            if source is None:
                return False
            with source:
                return (source.size_bytes, source.modified_ns) == (self.file.size_bytes, self.file.modified_ns)
        check = unchanged_pages(file, self.file, started, on_read)
        return check is not None and check.newest_lsn <= self.start_lsn


@dataclass(frozen=True, slots=True)
class ParentFiles:
    """The files of the base backup on which an incremental one is built."""

    manifest: BaseBackupManifest
    index: FileIndex
    compare: FileComparison = FileComparison.CONTENT

    def candidates(self, files: Iterable[DataFile]) -> dict[str, IndexedFile]:
        """Return the files that may be unchanged, by their paths, as the parent has them.

        A volume of which less than half would still be right is not referred to: it would be kept for little.
        """
        found = {file.path: known for file in files if (known := self._candidate(file)) is not None}
        right: Counter[int] = Counter()
        for known in found.values():
            for part in known.parts:
                right[part.volume] += part.size_bytes
        worth = {
            number
            for number, size_bytes in right.items()
            if 2 * size_bytes >= self.manifest.volumes[number].item.content_size_bytes
        }
        return {path: known for path, known in found.items() if all(part.volume in worth for part in known.parts)}

    def known(self, candidate: IndexedFile) -> KnownFile:
        """Return a candidate with the least of the LSNs at which its parts were read."""
        start_lsn = min(self.index.start_lsns[self._home(part)] for part in candidate.parts)
        return KnownFile(candidate, start_lsn, self.compare)

    def _candidate(self, file: DataFile) -> IndexedFile | None:
        known = self.index.files.get(file.path)
        if known is None or known.is_folder or not file.relation or file.size_bytes < _SMALLEST_BYTES:
            return None
        if (file.size_bytes, file.modified_ns) != (known.size_bytes, known.modified_ns):
            return None
        read_ns = min(_started_ns(self._home(part)) for part in known.parts)
        return known if known.modified_ns + _SETTLED_NS < read_ns else None

    def _home(self, part: FilePart) -> str:
        return self.manifest.volumes[part.volume].backup_id


class ReferredVolumes:
    """The volumes of earlier base backups that hold the ``unchanged`` files of the parent, the oldest first.

    They come before the own ones in the manifest's list: whoever opens all volumes in its order by hand gets each file
    as it was stored last.
    """

    def __init__(self, parent: ParentFiles, unchanged: Iterable[IndexedFile]) -> None:
        self.parent = parent
        self._unchanged = list(unchanged)
        needed = {part.volume for known in self._unchanged for part in known.parts}
        volumes = parent.manifest.volumes
        ordered = sorted(needed, key=lambda number: (volumes[number].backup_id, number))
        self._numbers = {number: place for place, number in enumerate(ordered)}
        self.volumes = tuple(volumes[number] for number in ordered)

    def files(self) -> Iterator[IndexedFile]:
        """Yield the unchanged files with the numbers of the new list."""
        for known in self._unchanged:
            parts = tuple(replace(part, volume=self._numbers[part.volume]) for part in known.parts)
            yield replace(known, parts=parts)

    def moved(self, own: IndexedFile) -> IndexedFile:
        """Return a file of the base backup's own volumes with their numbers in the new list."""
        count = len(self.volumes)
        return replace(own, parts=tuple(replace(part, volume=part.volume + count) for part in own.parts))

    @property
    def chain(self) -> tuple[str, ...]:
        """The chain of a base backup that refers to these volumes: all on which the parent builds, and the parent."""
        return (*self.parent.manifest.chain, self.parent.manifest.backup_id) if self.volumes else ()

    @property
    def start_lsns(self) -> dict[str, Lsn]:
        """Where replay begins for each base backup that is referred to, by its id."""
        return {volume.backup_id: self.parent.index.start_lsns[volume.backup_id] for volume in self.volumes}


def _started_ns(backup_id: str) -> int:
    """Return when a base backup began, by its id, in nanoseconds since 1970."""
    moment = datetime.strptime(backup_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * _NANOSECONDS
