"""Brings back a base backup of the method ``local``: only what is not there yet, many volumes at the same time."""

import stat
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BackupVolume, BaseBackupManifest
from wal_pipeline.archive.format.database_folders import database_of
from wal_pipeline.archive.format.keys import ENCRYPTED_SUFFIX
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_decoder import StoredStream, StreamOpener, open_stream
from wal_pipeline.commands.restore.files.checksums import in_manifest_order
from wal_pipeline.commands.restore.files.compare import Compared, all_wanted, compare_files, whole_crc32c
from wal_pipeline.commands.restore.files.fetch import ObjectFetcher
from wal_pipeline.commands.restore.files.on_disk import FilePlaces
from wal_pipeline.commands.restore.files.prune import parents_of, prune
from wal_pipeline.commands.restore.files.trusted import is_relation_file
from wal_pipeline.commands.restore.files.volume_tar import VolumeTar, file_mode
from wal_pipeline.commands.restore.files.workers import Workers, volumes_at_once
from wal_pipeline.commands.restore.untar import PG_CONTROL
from wal_pipeline.errors import RestoreError

_FOLDER_LIMIT: Final = 0o750
_TAR: Final = ".tar"


@dataclass(slots=True)
class LocalFiles:
    """The files of one base backup on their way into a data directory and its tablespaces.

    Files of the databases ``left_out`` are neither fetched nor written. ``proves``: each file is read back as soon as
    it is complete, while it is still in memory.
    """

    manifest: BaseBackupManifest
    index: FileIndex
    places: FilePlaces
    workers: int
    left_out: Collection[int] = frozenset()
    proves: bool = True
    compared: Compared = field(init=False)
    _keeps: bool = field(init=False, default=False)
    _proven: dict[str, bytes] = field(init=False, default_factory=dict)
    _parts_left: dict[str, int] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if PG_CONTROL not in self.index.files:
            raise RestoreError(f"base backup '{self.manifest.backup_id}' has no file '{PG_CONTROL}'")
        for name in self.index.files:
            self.places.path(name)  # each must lie below the folders, before anything is fetched
        self.compared = all_wanted(self._files())

    @property
    def proven(self) -> Mapping[str, bytes]:
        """The checksums of the files that were read from the disk and are right, in the order of PostgreSQL's list."""
        return self._proven

    @property
    def download_bytes(self) -> int:
        """The bytes of the volumes that are still needed."""
        return sum(self.manifest.volumes[number].item.size_bytes for number in self._needed())

    def keep(self) -> None:
        """Remove what the base backup does not have, and find out what is already right.

        Of files that are no relation's nothing proves that. Raises: RestoreError.
        """
        prune(
            self.places,
            (file.path for file in self._files() if is_relation_file(file.path)),
            (file.path for file in self._entries() if file.is_folder),
        )
        self._keeps = True
        self.compared = compare_files(self._files(), self.places, workers=self.workers)
        if self.proves:
            self._proven |= {path: in_manifest_order(crc32c) for path, crc32c in self.compared.right.items()}

    def place(self, fetcher: ObjectFetcher, identities: Sequence[Any]) -> None:
        """Fetch, open, write and prove the volumes that are needed. Raises: RestoreError, CodecError, StoreError."""
        try:
            self._make_folders()
            self._make_empty_files()
            self._fetch(fetcher, identities)
        except OSError as error:
            raise RestoreError(f"'{error.filename}' cannot be written: {error.strerror}") from error

    def _fetch(self, fetcher: ObjectFetcher, identities: Sequence[Any]) -> None:
        for wanted in self.compared.wanted.values():
            for one in wanted:
                self._parts_left[one.file.path] = self._parts_left.get(one.file.path, 0) + 1
        team = Workers[int](volumes_at_once(self.workers), "restore")
        turns = threading.Semaphore(self.workers)

        def restore(number: int) -> None:
            volume = self.manifest.volumes[number]
            with fetcher.fetched(volume.backup_id, volume.item, team.go_on) as path, team.turn(turns):
                self._open(number, volume, path, identities, team.go_on)

        team.run(restore, self._needed())

    def _entries(self) -> Iterable[IndexedFile]:
        """All files and folders that come back."""
        return (one for one in self.index.files.values() if database_of(one.path) not in self.left_out)

    def _files(self) -> Iterable[IndexedFile]:
        return (one for one in self._entries() if not one.is_folder)

    def _needed(self) -> list[int]:
        """The volumes that hold something that is wanted. Of one that holds only empty files nothing is."""
        wanted = self.compared.wanted
        return sorted(number for number, some in wanted.items() if any(one.part.size_bytes for one in some))

    def _make_folders(self) -> None:
        """Make all folders. They have the modes of those that are in the index, or what the cluster gives its own."""
        default = 0o750 if self._group_reads() else 0o700
        folders: dict[str, int] = {}
        for one in self._entries():
            for folder in parents_of(f"{one.path}/" if one.is_folder else one.path):
                folders.setdefault(folder, default)
            if one.is_folder:
                folders[one.path] = (one.mode & _FOLDER_LIMIT) | 0o700
        for name, mode in sorted(folders.items()):
            path = Path(self.places.path(name))
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if stat.S_IMODE(path.stat().st_mode) != mode:
                path.chmod(mode)

    def _group_reads(self) -> bool:
        """Say whether the cluster was made with initdb's --allow-group-access."""
        return bool(self.index.files[PG_CONTROL].mode & 0o040)

    def _make_empty_files(self) -> None:
        for wanted in self.compared.wanted.values():
            for one in wanted:
                if not one.file.size_bytes:
                    path = Path(self.places.path(one.file.path))
                    path.touch(mode=0o600)
                    path.chmod(file_mode(one.file))

    def _open(
        self,
        number: int,
        volume: BackupVolume,
        path: Path,
        identities: Sequence[Any],
        go_on: Callable[[], None],
    ) -> None:
        wanted = {one.member: one for one in self.compared.wanted[number] if one.part.size_bytes}
        tar = VolumeTar(volume.item.name, wanted, self.places.path, reads_back=self.proves, overwrites=self._keeps)
        codec, encrypted = encoding_of(volume.item.name)

        def take(data: bytes) -> None:
            go_on()
            tar.feed(data)

        try:
            with path.open("rb") as stream:
                opener = StreamOpener(codec, volume.item, take)
                open_stream(StoredStream(stream), opener, encrypted, identities)
            tar.finish()
        finally:
            tar.close()
        for one in wanted.values():
            self._end(one.file)

    def _end(self, file: IndexedFile) -> None:
        """Note a file as proven whose last part was read back: each of them has its own CRC-32C."""
        with self._lock:
            self._parts_left[file.path] -= 1
            if self._parts_left[file.path] or not self.proves:
                return
            self._proven[file.path] = in_manifest_order(whole_crc32c(file))


def encoding_of(name: str) -> tuple[Codec, bool]:
    """Return how a volume is compressed, and whether it is encrypted, by its name: an earlier one's may differ."""
    encrypted = name.endswith(ENCRYPTED_SUFFIX)
    suffix = name.removesuffix(ENCRYPTED_SUFFIX).rpartition(_TAR)[2]
    return next(codec for codec in Codec if codec.suffix == suffix), encrypted
