"""Takes base backups of files without a server, cuts them where a test says so, and restores what the last one made.

All is the program's own but the server: what a session does between its start and its last volume.
"""

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest, make_backup_id
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.bundles import plan_bundles
from wal_pipeline.commands.backup.local.packed import PackedVolumes
from wal_pipeline.commands.backup.local.resume.copier import VolumeCopier
from wal_pipeline.commands.backup.local.resume.find import find_unfinished
from wal_pipeline.commands.backup.local.resume.index_parts import IndexParts
from wal_pipeline.commands.backup.local.resume.units import resume_units
from wal_pipeline.commands.backup.local.stored_objects import StoredObjects
from wal_pipeline.commands.backup.local.volume_packer import VolumePacker
from wal_pipeline.commands.backup.part_uploader import UploadLimits
from wal_pipeline.commands.backup.upload import BackupUpload
from wal_pipeline.commands.restore.files.fetch import ObjectFetcher
from wal_pipeline.commands.restore.files.local import LocalFiles
from wal_pipeline.commands.restore.files.on_disk import FilePlaces
from wal_pipeline.commands.restore.untar import PG_CONTROL
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.postgres.started_backup import StartedBackup
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at
from wal_pipeline_tests.support.archive_scene import folder_store
from wal_pipeline_tests.support.manifests import LAYOUT, make_local_manifest

PAGE = 8192
_MIB = 1 << 20
_FIRST_AT = datetime(2026, 11, 22, tzinfo=UTC)
_FIRST_LSN, _LSN_STEP = 0x5000028, 0x1000000


class CutError(Exception):
    """The process ends here."""


def lsn_of(take: int) -> Lsn:
    """Where base backup number ``take`` of a scene begins."""
    return Lsn(_FIRST_LSN + take * _LSN_STEP)


def page(content: int, lsn: Lsn) -> bytes:
    """Return a page of random bytes that was changed last at ``lsn``; checksums are off in these scenes."""
    head = struct.pack("=II", lsn >> 32, lsn & 0xFFFFFFFF)
    return head + random.Random(content).randbytes(PAGE - len(head))  # noqa: S311 - a test's bytes


@dataclass
class TakenFiles:
    """A base backup that came to its end: its files, and the keys of the volumes that were copied."""

    manifest: BaseBackupManifest
    files: Mapping[str, IndexedFile]
    copied: Mapping[int, str]

    def copied_parts(self, path: str) -> set[int]:
        """The places of those parts of a file that were copied."""
        return {part.offset_bytes for part in self.files[path].parts if part.volume in self.copied}


@dataclass
class CutBackups:
    """A data directory without a server, two stores, and one base backup after the other.

    A volume has ``volume_pages`` pages. ``every_volume``: each is told of as soon as it is handed over.
    """

    folder: Path
    volume_pages: int = 4
    encoder: StreamEncoder = field(default_factory=lambda: StreamEncoder(Codec.ZSTD))
    identities: Sequence[Any] = ()
    every_volume: bool = True
    taken: int = 0

    def __post_init__(self) -> None:
        self.stores: list[LocalFolderStore] = [folder_store(name, self.folder / name) for name in ("r2", "b2")]
        self.places = [ClusterStore(store, LAYOUT) for store in self.stores]
        self.pgdata = self.folder / "pgdata"
        self.write(PG_CONTROL, b"control" * 100)

    def write(self, path: str, data: bytes) -> Path:
        """Write a file of the data directory."""
        file = self.pgdata / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def backup_id(self, take: int) -> str:
        """The id of base backup number ``take``."""
        return make_backup_id(_FIRST_AT + timedelta(minutes=take), segment_at(1, lsn_of(take), 16 * _MIB))

    def keys(self, take: int) -> list[str]:
        """The names of the objects that both stores have of a base backup."""
        prefix = LAYOUT.base_key(self.backup_id(take), "x").removesuffix("x")
        names = [{item.key.removeprefix(prefix) for item in store.list(prefix)} for store in self.stores]
        return sorted(set.intersection(*names))

    def cut(self, after_bytes: int) -> int:
        """Take a base backup whose process ends once so many bytes were read, and return its number."""
        try:
            self._take(after_bytes)
        except CutError:
            return self.taken - 1
        raise AssertionError(f"it came to its end before {after_bytes} bytes were read")

    def take(self) -> TakenFiles:
        """Take a base backup to its last volume but one."""
        return self._take(None)

    def _files(self) -> list[DataFile]:
        found = []
        for source in sorted(path for path in self.pgdata.rglob("*") if path.is_file()):
            path, status = source.relative_to(self.pgdata).as_posix(), source.stat()
            is_relation = path.startswith("base/")
            database = int(path.split("/")[1]) if is_relation else None
            found.append(
                DataFile(
                    path,
                    source,
                    status.st_size,
                    status.st_mtime_ns,
                    0o600,
                    is_folder=False,
                    relation=is_relation,
                    database=database,
                )
            )
        return found

    def _take(self, cut_after_bytes: int | None) -> TakenFiles:
        take, self.taken = self.taken, self.taken + 1
        backup_id, read_bytes, told_at = self.backup_id(take), 0, 0.0
        started_at = _FIRST_AT + timedelta(minutes=take)
        started = StartedBackup(lsn_of(take), 1, started_at, 18, 7, False, PAGE, 131072, has_checksums=False)
        packed = PackedVolumes()

        def now() -> float:
            nonlocal told_at
            told_at += 1e6 if self.every_volume else 0.0
            return told_at

        def note(size_bytes: int) -> None:
            nonlocal read_bytes
            read_bytes += size_bytes
            parts.store_news(packed)
            if cut_after_bytes is not None and read_bytes >= cut_after_bytes:
                raise CutError

        limits = UploadLimits(part_size_bytes=_MIB, tries=1)
        unfinished = find_unfinished(self.places, self.encoder, self.identities)
        with BackupUpload([place.store for place in self.places], limits) as upload:
            objects = StoredObjects(backup_id, LAYOUT, self.encoder, upload)
            packer = VolumePacker(
                backup_id, started, self.encoder, objects.store, packed, self.volume_pages * PAGE, note
            )
            parts = IndexParts(backup_id, started.start_lsn, self.places, self.encoder, now)
            copier = _NotingCopier(objects, packer)
            try:
                files = self._files()
                for units in resume_units(unfinished, files):
                    for unit in units:
                        copier.take(unit)
                        files = [file for file in files if file not in unit.files]
                for bundle in plan_bundles(files, packer.volume_size_bytes):
                    packer.pack(bundle)
                parts.store_news(packed, is_last=True)
            finally:
                upload.wait()  # a test says what is told, not what is on its way
            upload.look_again()
        manifest = make_local_manifest(
            backup_id=backup_id,
            volumes=packed.volumes(),
            codec=self.encoder.codec,
            encrypted=self.encoder.encrypted,
            files_size_bytes=sum(file.size_bytes for file in packed.files.values()),
        )
        return TakenFiles(manifest, packed.files, copier.copied_from)

    def restored(self, taken: TakenFiles, to: Path) -> dict[str, bytes]:
        """Restore a base backup, by its index, and return the files' contents."""
        to.mkdir()
        (staging := to / "staging").mkdir()
        index = FileIndex(taken.files, {taken.manifest.backup_id: taken.manifest.start_lsn})
        places = FilePlaces(to / "pgdata")
        files = LocalFiles(taken.manifest, index, places, 1)
        files.place(ObjectFetcher(LAYOUT, self.stores, staging=staging), self.identities)
        return {path: Path(places.path(path)).read_bytes() for path in taken.files}

    def contents(self) -> dict[str, bytes]:
        """The contents of the data directory's files."""
        return {file.path: file.source.read_bytes() for file in self._files()}


class _NotingCopier(VolumeCopier):
    """Notes which volume is a copy of which."""

    copied_from: dict[int, str]

    def __init__(self, objects: StoredObjects, packer: VolumePacker) -> None:
        super().__init__(objects, packer)
        object.__setattr__(self, "copied_from", {})

    def copy(self, backup_id: str, item: Any) -> int:
        number = super().copy(backup_id, item)
        self.copied_from[number] = f"{backup_id}/{item.name}"
        return number
