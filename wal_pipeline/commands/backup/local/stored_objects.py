"""Stores the objects of one base backup of the method ``local``, from any thread."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.volume_packer import joined
from wal_pipeline.commands.backup.objects import object_metadata
from wal_pipeline.commands.backup.upload import BackupUpload, Sink
from wal_pipeline.commands.copies.stored_bytes import StoredBytes


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """Where the objects of the base backup ``backup_id`` go, and how they are encoded."""

    backup_id: str
    layout: Layout
    encoder: StreamEncoder
    upload: BackupUpload

    def store(self, name: str, chunks: Iterable[bytes]) -> StoredBytes:
        """Encode the chunks of one object in this thread, and hand it over for upload. Raises: as both do."""
        return self.store_encoded(name, lambda sink: self.encoder.encode_here(chunks, sink))

    def store_encoded(self, name: str, write: Callable[[Sink], None]) -> StoredBytes:
        """Hand over for upload one object, of the bytes that ``write`` gives to its sink. Raises: as both do."""
        key = self.layout.base_key(self.backup_id, name)
        return self.upload.store_object(key, object_metadata(self.backup_id), write)

    def store_described(self, name: str, chunks: Iterable[bytes]) -> BackupObject:
        """Store one object and return it as the manifest has it. Raises: as ``store``."""
        size_bytes = 0

        def counted() -> Iterator[bytes]:
            nonlocal size_bytes
            for chunk in joined(chunks):
                size_bytes += len(chunk)
                yield chunk

        stored = self.store(name, counted())
        return BackupObject(name, stored.size_bytes, stored.sha256, size_bytes)

    def proves(self, source_id: str, item: BackupObject) -> bool:
        """Whether every store proves to have this object of another base backup. Raises: as the upload."""
        stored = StoredBytes(item.size_bytes, item.sha256)
        return self.upload.all_prove(self.layout.base_key(source_id, item.name), stored)

    def copy(self, source_id: str, item: BackupObject, name: str) -> BackupObject:
        """Let every store copy an object of another base backup, and return the copy. Raises: as the upload."""
        self.upload.copy_object(
            self.layout.base_key(source_id, item.name),
            self.layout.base_key(self.backup_id, name),
            object_metadata(self.backup_id),
            StoredBytes(item.size_bytes, item.sha256),
        )
        return replace(item, name=name)
