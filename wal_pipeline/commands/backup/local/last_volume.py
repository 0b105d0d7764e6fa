"""Makes a base backup's last volume: what is known only when all other files are stored."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

import google_crc32c

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.commands.backup.local.control_copy import copy_control_file
from wal_pipeline.commands.backup.local.packed import PackedVolumes
from wal_pipeline.commands.backup.local.volume_packer import VolumePacker
from wal_pipeline.commands.backup.local.volume_tar import member_header, padding
from wal_pipeline.postgres.data_files import CONTROL_PATH, DataFile
from wal_pipeline.postgres.file_list import FILE_LIST_NAME, FileListEntry, NeededWal, file_list_lines
from wal_pipeline.postgres.online_backup import StoppedBackup

LABEL_PATH: Final = "backup_label"
MAP_PATH: Final = "tablespace_map"
_READ_BYTES: Final = 1 << 20
_PRIVATE: Final = 0o600
_NOTHING: Final = f"{0:08x}"


@dataclass(frozen=True, slots=True)
class _MadeFile:
    """A file whose bytes are in memory."""

    path: str
    data: bytes
    modified_ns: int
    mode: int = _PRIVATE

    def indexed(self, volume: int) -> IndexedFile:
        """Return the file as the index has it, whole in that volume."""
        checksum = f"{google_crc32c.value(self.data):08x}"
        part = FilePart(volume, 0, len(self.data), checksum)
        return IndexedFile(self.path, len(self.data), self.modified_ns, self.mode, checksum, (part,))

    def member(self) -> bytes:
        """Return its bytes in the tar."""
        header = member_header(self.path, len(self.data), self.mode, self.modified_ns)
        return header + self.data + padding(len(self.data))


@dataclass(slots=True)
class LastVolume:
    """Makes the volume with the folders that hold no file, PostgreSQL's own texts, the control file and the list.

    The control file is copied when all other files were read and before the backup mode ends: on a standby, a restore
    is consistent from what it says on.
    """

    pgdata: Path
    folders: Sequence[DataFile]
    packed: PackedVolumes
    _made: list[_MadeFile] = field(default_factory=list)

    def copy_control_file(self) -> None:
        """Read the control file, which must be the last one. Raises: BaseBackupError, PostgresError."""
        control = copy_control_file(self.pgdata)
        self._made.append(_MadeFile(CONTROL_PATH, control.data, control.modified_ns, control.mode))

    def store(self, packer: VolumePacker, stopped: StoppedBackup, file_list: BinaryIO) -> None:
        """Store the volume, and write PostgreSQL's list of all files to ``file_list``. Raises: as the packer."""
        number, now_ns = self.packed.begin(), time.time_ns()
        texts = {LABEL_PATH: stopped.label_file, MAP_PATH: stopped.tablespace_map}
        made = [*(_MadeFile(path, text, now_ns) for path, text in texts.items() if text), *self._made]
        for file in made:
            self.packed.add_file(file.indexed(number))
        checksum = self._write_list(packer, stopped, file_list)
        empty = list(folders_without_files(self.folders, chain(self.packed.files, self.packed.unchanged)))
        size_bytes = file_list.tell()
        packer.store_volume(
            number,
            chain(
                (member_header(f"{one.path}/", 0, one.mode, one.modified_ns, is_folder=True) for one in empty),
                (file.member() for file in made),
                _members_of(file_list, size_bytes, now_ns),
            ),
        )
        nothing = FilePart(number, 0, 0, _NOTHING)
        for folder in empty:
            self.packed.add_file(
                IndexedFile(folder.path, 0, folder.modified_ns, folder.mode, _NOTHING, (nothing,), is_folder=True)
            )
        part = FilePart(number, 0, size_bytes, checksum)
        self.packed.add_file(IndexedFile(FILE_LIST_NAME, size_bytes, now_ns, _PRIVATE, checksum, (part,)))

    def _write_list(self, packer: VolumePacker, stopped: StoppedBackup, file_list: BinaryIO) -> str:
        """Write the list and return its checksum."""
        started = packer.started
        listed = (
            FileListEntry(file.path, file.size_bytes, file.modified_ns, file.crc32c)
            for _, file in sorted({**self.packed.unchanged, **self.packed.files}.items())
        )
        checksum = 0
        for line in file_list_lines(
            listed,
            NeededWal(started.timeline, started.start_lsn, stopped.stop_lsn),
            major=started.major,
            system_identifier=started.system_identifier,
        ):
            checksum = google_crc32c.extend(checksum, line)
            file_list.write(line)
        return f"{checksum:08x}"


def folders_without_files(folders: Iterable[DataFile], files: Iterable[str]) -> Iterator[DataFile]:
    """Yield the folders in which, at any depth, no file was stored; each comes before those in it."""
    filled: set[str] = set()
    for path in files:
        folder = path.rpartition("/")[0]
        while folder and folder not in filled:
            filled.add(folder)
            folder = folder.rpartition("/")[0]
    yield from sorted((folder for folder in folders if folder.path not in filled), key=lambda one: one.path)


def _members_of(file_list: BinaryIO, size_bytes: int, modified_ns: int) -> Iterator[bytes]:
    """Yield the bytes of PostgreSQL's list in the tar; it may be too long for the memory."""
    file_list.seek(0)
    yield member_header(FILE_LIST_NAME, size_bytes, _PRIVATE, modified_ns)
    yield from iter(lambda: file_list.read(_READ_BYTES), b"")
    yield padding(size_bytes)
