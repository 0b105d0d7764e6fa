"""Packs files into volumes: reads each once, and lets tar, compression, encryption and upload take what was read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import FILES, BackupObject, volume_name
from wal_pipeline.archive.format.base_backup.parts import part_name
from wal_pipeline.archive.format.base_backup.unfinished import BegunFile
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.bundles import Bundle
from wal_pipeline.commands.backup.local.packed import PackedTaker
from wal_pipeline.commands.backup.local.source_file import READ_BYTES, OnRead, SourceFile, open_source, read_together
from wal_pipeline.commands.backup.local.volume_tar import TAR_END, member_header, padding
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.postgres.started_backup import StartedBackup

_JOINED_BYTES: Final = 128 << 10
_SMALL_BYTES: Final = 64 << 10
_SMALL_FILES: Final = 64  # open and in memory at once
Store = Callable[[str, Iterable[bytes]], StoredBytes]


class StoredParts(Protocol):
    """The parts of one file that an earlier base backup has stored."""

    def copied(self, source: SourceFile, offset_bytes: int) -> FilePart | None:
        """Take the part that begins there into this base backup, where it is still right; None where none is."""

    def next_offset(self, offset_bytes: int) -> int | None:
        """Return where the first part behind this place begins."""


@dataclass(frozen=True, slots=True)
class VolumePacker:
    """Packs bundles of files into volumes of one base backup; serves several workers at once.

    ``store`` encodes the chunks of one object and hands it over for upload. A volume has about ``volume_size_bytes`` of
    content at most: files that grew since they were planned go into the next one.
    """

    backup_id: str
    started: StartedBackup
    encoder: StreamEncoder
    store: Store
    packed: PackedTaker
    volume_size_bytes: int
    on_read: OnRead = lambda _: None

    def pack(self, bundle: Bundle) -> None:
        """Store the files of a bundle, of which some may be gone. Raises: BaseBackupError, and as ``store``."""
        waiting = iter(bundle)
        source = self._next(waiting)
        while source is not None:
            if source.size_bytes > self._part_bytes:
                with source:
                    self._store_parts(source)
                source = self._next(waiting)
            else:
                source = self._store_bundle(source, waiting)

    def pack_parts(self, file: DataFile, stored: StoredParts) -> None:
        """Store a file that is larger than a volume, but for the parts that are stored already. Raises: as ``pack``."""
        source = open_source(file, self.started, self.on_read)
        if source is None:
            return
        if source.size_bytes <= self._part_bytes:  # cut meanwhile
            self._store_bundle(source, iter(()))
            return
        with source:
            self._store_parts(source, stored)

    @property
    def _part_bytes(self) -> int:
        """The largest part of a file: whole pages, so that their checksums can be verified."""
        return max(1, self.volume_size_bytes // self.started.block_size) * self.started.block_size

    def _next(self, waiting: Iterator[DataFile]) -> SourceFile | None:
        """Open the next file that is still there."""
        for file in waiting:
            source = open_source(file, self.started, self.on_read)
            if source is not None:
                return source
        return None

    def _store_bundle(self, first: SourceFile, waiting: Iterator[DataFile]) -> SourceFile | None:
        """Store one volume of whole files; return the file, open, that did not fit into it any more."""
        number, size_bytes = self.packed.begin(), 0
        left_over: SourceFile | None = first  # also of a volume that is given up before its first byte
        small: list[SourceFile] = []

        def chunks() -> Iterator[bytes]:
            nonlocal size_bytes, left_over
            source, left_over = left_over, None
            while source is not None:
                size_bytes += source.size_bytes
                if source.size_bytes <= _SMALL_BYTES:
                    small.append(source)
                else:
                    with source:
                        yield from self._whole_file(source, number)
                if len(small) == _SMALL_FILES:
                    yield self._small_files(small, number)
                source = self._next(waiting)
                if source is not None and size_bytes + source.size_bytes > self._part_bytes:
                    left_over, source = source, None
            yield self._small_files(small, number)

        try:
            self.store_volume(number, chunks())
        except BaseException:
            for source in (*small, *([left_over] if left_over is not None else [])):
                source.close()
            raise
        return left_over

    def _small_files(self, sources: list[SourceFile], number: int) -> bytes:
        """Return the members of small files, and close them: the list is empty then."""
        made = bytearray()
        for source, content in zip(sources, read_together(sources), strict=True):
            made += member_header(source.path, source.size_bytes, source.mode, source.modified_ns)
            made += content
            made += padding(source.size_bytes)
            self._note(source, (FilePart(number, 0, source.size_bytes, source.crc32c),))
        while sources:
            sources.pop().close()
        return bytes(made)

    def _whole_file(self, source: SourceFile, number: int) -> Iterator[bytes]:
        yield member_header(source.path, source.size_bytes, source.mode, source.modified_ns)
        yield from source.chunks(source.size_bytes)
        yield padding(source.size_bytes)
        self._note(source, (FilePart(number, 0, source.size_bytes, source.crc32c),))

    def _store_parts(self, source: SourceFile, stored: StoredParts | None = None) -> None:
        """Store a file that is larger than a volume, in a volume for each part."""
        parts = []
        while source.rest_bytes:
            offset = source.size_bytes - source.rest_bytes
            part = stored.copied(source, offset) if stored is not None else None
            if part is None:
                part = self._store_part(source, offset, stored.next_offset(offset) if stored is not None else None)
            parts.append(part)
            self.packed.add_parts(BegunFile(source.path, source.size_bytes, source.modified_ns, source.mode, (part,)))
        self._note(source, tuple(parts))

    def _store_part(self, source: SourceFile, offset: int, end: int | None) -> FilePart:
        """Store the next part, which does not go beyond ``end``."""
        size_bytes = min(self._part_bytes, source.rest_bytes, self._part_bytes if end is None else end - offset)
        number = self.packed.begin()
        self.store_volume(number, self._part(source, offset, size_bytes))
        return FilePart(number, offset, size_bytes, source.part_crc32c)

    def _part(self, source: SourceFile, offset: int, size_bytes: int) -> Iterator[bytes]:
        source.begin_part()
        yield member_header(part_name(source.path, offset), size_bytes, source.mode, source.modified_ns)
        yield from source.chunks(size_bytes)
        yield padding(size_bytes)

    def volume_name(self, number: int) -> str:
        """Return the name of volume ``number``."""
        return volume_name(FILES, number, self.encoder.codec, encrypted=self.encoder.encrypted)

    def store_volume(self, number: int, chunks: Iterable[bytes]) -> None:
        """Store volume ``number`` of these members. Raises: as ``store``."""
        tar_bytes = 0

        def counted() -> Iterator[bytes]:
            nonlocal tar_bytes
            for chunk in chain(joined(chunks), (TAR_END,)):
                tar_bytes += len(chunk)
                yield chunk

        name = self.volume_name(number)
        stored = self.store(name, counted())
        self.packed.add_volume(number, self.backup_id, BackupObject(name, stored.size_bytes, stored.sha256, tar_bytes))

    def _note(self, source: SourceFile, parts: tuple[FilePart, ...]) -> None:
        file = IndexedFile(source.path, source.size_bytes, source.modified_ns, source.mode, source.crc32c, parts)
        findings = source.check.findings if source.check is not None else None
        self.packed.add_file(file, findings if findings is not None and findings.is_noteworthy else None)


def joined(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join small chunks, so that a bundle of small files is not compressed in crumbs; large ones are not copied."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        if waiting and (len(chunk) >= _JOINED_BYTES or size >= READ_BYTES):
            yield b"".join(waiting)
            waiting, size = [], 0
        if len(chunk) >= _JOINED_BYTES:
            yield chunk
        else:
            waiting.append(chunk)
            size += len(chunk)
    if waiting:
        yield b"".join(waiting)
