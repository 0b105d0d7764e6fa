"""Makes base backups of the method ``local`` of a folder, for the tests of whatever reads them. No server is needed."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google_crc32c

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, FilePart, IndexedFile, index_lines
from wal_pipeline.archive.format.base_backup.manifest import (
    FILES,
    BackupObject,
    BackupTablespace,
    BackupVolume,
    BaseBackupManifest,
    WalRange,
    backup_manifest_name,
    file_index_name,
    make_backup_id,
    volume_name,
)
from wal_pipeline.archive.format.base_backup.manifest_json import to_json
from wal_pipeline.archive.format.base_backup.parts import part_name
from wal_pipeline.archive.records import BackupKind, BackupMethod, Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.volume_tar import TAR_END, member_header, padding
from wal_pipeline.commands.backup.objects import object_metadata
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at

MIB = 1 << 20
START, STOP = Lsn.parse("0/2000028"), Lsn.parse("0/2000120")
LAST = ("backup_label", "tablespace_map", "global/pg_control")
LEFT_OUT = frozenset(("postmaster.pid", "postmaster.opts", "backup_manifest", "current_logfiles", "pg_wal"))


def crc32c(data: bytes) -> str:
    """The CRC-32C of some bytes, as eight hex digits."""
    return f"{google_crc32c.value(data):08x}"


@dataclass(frozen=True)
class MadeBackup:
    """A base backup that lies on a store, and its index."""

    manifest: BaseBackupManifest
    index: FileIndex


@dataclass
class FolderBackup:
    """Makes one base backup of a data directory that no server runs on, or of any folder.

    With ``parent`` it is an incremental one: files whose size and time are the parent's index's are referred to.
    """

    place: ClusterStore
    folder: Path
    started_at: datetime = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)
    start_lsn: Lsn = START
    stop_lsn: Lsn = STOP
    timeline: int = 1
    wal_segment_size: int = 16 * MIB
    server_version: int = 180006
    encoder: StreamEncoder = field(default_factory=lambda: StreamEncoder(Codec.ZSTD))
    volume_size_bytes: int = MIB
    parent: MadeBackup | None = None
    note: str = ""
    extra_files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = segment_at(self.timeline, self.start_lsn, self.wal_segment_size)
        self.backup_id = make_backup_id(self.started_at, first)
        self._members: list[tuple[str, bytes, int, int]] = []
        self._members_database: str | None = None
        self._volumes: list[BackupVolume] = []
        self._referred: dict[tuple[str, str], int] = {}
        self._files: dict[str, IndexedFile] = {}
        self._refers: list[IndexedFile] = []

    def make(self) -> MadeBackup:
        """Store all objects of the base backup, the manifest last."""
        found = dict(sorted(_files(self.folder)))
        last = [path for path in LAST if path in found]
        for path in sorted((path for path in found if path not in LAST), key=lambda one: (_database(one), one)):
            self._add(path, found[path].read_bytes(), found[path].stat())
        self._close()
        for path in _empty_folders(self.folder):
            self._members.append((path + "/", b"", 0o700, 0))
            part = FilePart(len(self._volumes), 0, 0, crc32c(b""))
            self._files[path] = IndexedFile(path, 0, 0, 0o700, crc32c(b""), (part,), is_folder=True)
        for path in last:
            self._whole(path, found[path].read_bytes(), found[path].stat())
        for path, data in self.extra_files.items():
            self._whole(path, data, None)
        listed = self._file_list()
        self._whole("backup_manifest", listed, None)
        self._close()
        return self._finish(listed)

    def _add(self, path: str, data: bytes, stat: os.stat_result) -> None:
        known = self.parent.index.files.get(path) if self.parent else None
        if known is not None and (known.size_bytes, known.modified_ns) == (stat.st_size, stat.st_mtime_ns):
            self._refers.append(known)
            return
        if _database(path) != self._members_database:
            self._close()
        self._members_database = _database(path)
        if len(data) > self.volume_size_bytes:
            self._close()
            self._in_parts(path, data, stat)
            return
        if self._members and sum(len(one[1]) for one in self._members) + len(data) > self.volume_size_bytes:
            self._close()
        self._whole(path, data, stat)

    def _whole(self, path: str, data: bytes, stat: os.stat_result | None) -> None:
        mode, modified_ns = (stat.st_mode & 0o7777, stat.st_mtime_ns) if stat else (0o600, 0)
        part = FilePart(len(self._volumes), 0, len(data), crc32c(data))
        self._members.append((path, data, mode, modified_ns))
        self._files[path] = IndexedFile(path, len(data), modified_ns, mode, crc32c(data), (part,))

    def _in_parts(self, path: str, data: bytes, stat: os.stat_result) -> None:
        parts = []
        for offset in range(0, len(data), self.volume_size_bytes):
            chunk = data[offset : offset + self.volume_size_bytes]
            parts.append(FilePart(len(self._volumes), offset, len(chunk), crc32c(chunk)))
            self._members.append((part_name(path, offset), chunk, stat.st_mode & 0o7777, stat.st_mtime_ns))
            self._close()
        mode = stat.st_mode & 0o7777
        self._files[path] = IndexedFile(path, len(data), stat.st_mtime_ns, mode, crc32c(data), tuple(parts))

    def _close(self) -> None:
        if not self._members:
            return
        tar = bytearray()
        for name, data, mode, modified_ns in self._members:
            header = member_header(name, len(data), mode, modified_ns, is_folder=name.endswith("/"))
            tar += header + data + padding(len(data))
        self._members = []
        number = len(self._volumes)
        name = volume_name(FILES, number, self.encoder.codec, encrypted=self.encoder.encrypted)
        self._volumes.append(BackupVolume(self.backup_id, self._store(name, bytes(tar + TAR_END))))

    def _store(self, name: str, content: bytes) -> BackupObject:
        stored = bytearray()
        self.encoder.encode(io.BytesIO(content), stored.extend)
        body = Body.of(bytes(stored))
        key = self.place.layout.base_key(self.backup_id, name)
        self.place.store.put_if_absent(key, body, object_metadata(self.backup_id))
        return BackupObject(name, body.size_bytes, body.sha256, len(content))

    def _file_list(self) -> bytes:
        """PostgreSQL's ``backup_manifest``."""
        files: list[dict[str, object]] = [
            {
                "Path": one.path,
                "Size": one.size_bytes,
                "Last-Modified": "2026-11-22 17:45:00 GMT",
                "Checksum-Algorithm": "CRC32C",
                # PostgreSQL writes the four bytes as they lie in memory.
                "Checksum": bytes.fromhex(one.crc32c)[::-1].hex(),
            }
            for one in [*self._files.values(), *self._refers]
            if not one.is_folder
        ]
        head = '{ "PostgreSQL-Backup-Manifest-Version": 1,\n'
        if self.server_version >= 170000:
            identifier = self.place.layout.system_identifier
            head = f'{{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": {identifier},\n'
        ranges = [{"Timeline": self.timeline, "Start-LSN": str(self.start_lsn), "End-LSN": str(self.stop_lsn)}]
        text = f'{head}"Files": {json.dumps(files)},\n"WAL-Ranges": {json.dumps(ranges)},\n'
        return f'{text}"Manifest-Checksum": "{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()

    def _refer(self, known: IndexedFile, parent: MadeBackup) -> IndexedFile:
        parts = []
        for part in known.parts:
            volume = parent.manifest.volumes[part.volume]
            where = (volume.backup_id, volume.item.name)
            if where not in self._referred:
                self._referred[where] = len(self._volumes)
                self._volumes.append(volume)
            parts.append(replace(part, volume=self._referred[where]))
        return replace(known, parts=tuple(parts))

    def _finish(self, listed: bytes) -> MadeBackup:
        chain: tuple[str, ...] = ()
        start_lsns = {self.backup_id: self.start_lsn}
        if self.parent is not None:
            chain = (*self.parent.manifest.chain, self.parent.manifest.backup_id)
            for known in self._refers:
                self._files[known.path] = self._refer(known, self.parent)
            homes = {volume.backup_id for volume in self._volumes}
            start_lsns |= {name: lsn for name, lsn in self.parent.index.start_lsns.items() if name in homes}
        files, encoder = list(self._files.values()), self.encoder
        index = b"".join(index_lines(files, start_lsns))
        manifest = BaseBackupManifest(
            backup_id=self.backup_id,
            kind=BackupKind.INCREMENTAL if chain else BackupKind.FULL,
            chain=chain,
            system_identifier=self.place.layout.system_identifier,
            wal_ranges=(WalRange(self.timeline, self.start_lsn, self.stop_lsn),),
            started_at=self.started_at,
            finished_at=self.started_at + timedelta(minutes=3),
            label="test",
            wal_segment_size=self.wal_segment_size,
            server_version=self.server_version,
            codec=encoder.codec,
            encrypted=encoder.encrypted,
            staged=False,
            volume_size_bytes=self.volume_size_bytes,
            tablespaces=tuple(_tablespaces(self.folder)),
            tars=(),
            backup_manifest=self._store(backup_manifest_name(encoder.codec, encrypted=encoder.encrypted), listed),
            method=BackupMethod.LOCAL,
            volumes=tuple(self._volumes),
            file_index=self._store(file_index_name(encoder.codec, encrypted=encoder.encrypted), index),
            files_size_bytes=sum(one.size_bytes for one in files),
            note=self.note,
        )
        body = Body.of(to_json(manifest))
        self.place.store.put_if_absent(self.place.layout.manifest_key(self.backup_id), body, {})
        return MadeBackup(manifest, FileIndex({one.path: one for one in files}, start_lsns))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not LEFT_OUT & set(Path(name).parts):
            yield name, path


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir():
            yield from _walk(path)


def _empty_folders(folder: Path) -> Sequence[str]:
    empty = [path.relative_to(folder) for path in _walk(folder) if path.is_dir() and not any(path.iterdir())]
    kept = [path.as_posix() for path in empty if not LEFT_OUT & set(path.parts)]
    return [*kept, "pg_wal"] if (folder / "pg_wal").is_dir() else kept


def _tablespaces(folder: Path) -> Iterator[BackupTablespace]:
    links = folder / "pg_tblspc"
    for link in sorted(links.iterdir()) if links.is_dir() else ():
        yield BackupTablespace(int(link.name), str(link.readlink()))


def _database(path: str) -> str:
    parts = path.split("/")
    if parts[0] == "base" and len(parts) > 2:
        return parts[1]
    return parts[3] if parts[0] == "pg_tblspc" and len(parts) > 4 else ""
