"""Packs a folder with a volume packer, and opens what it made: for tests of files that change while they are read."""

import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from wal_pipeline.archive.format.base_backup.parts import split_part_name
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.bundles import plan_bundles
from wal_pipeline.commands.backup.local.packed import PackedVolumes
from wal_pipeline.commands.backup.local.volume_packer import VolumePacker
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.postgres.started_backup import StartedBackup
from wal_pipeline.wal.lsn import Lsn

STARTED = StartedBackup(Lsn.parse("0/5000028"), 1, datetime(2026, 11, 22, tzinfo=UTC), 18, 7, False, 8192, 131072, True)


@dataclass
class PackedFolder:
    """Packs files below ``folder``. ``on_read`` is called with all bytes that were read so far, after each read."""

    folder: Path
    volume_size_bytes: int = 8 << 20
    on_read: Callable[[int], object] = lambda _: None
    packed: PackedVolumes = field(default_factory=PackedVolumes)
    volumes: dict[str, bytes] = field(default_factory=dict)
    read_bytes: int = 0

    def file(self, path: str, content: bytes, *, relation: bool = False) -> DataFile:
        """Make a file, and return it as the walk finds it."""
        source = self.folder / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(content)
        database = int(path.split("/")[1]) if path.startswith("base/") else None
        status = source.stat()
        return DataFile(
            path, source, len(content), status.st_mtime_ns, 0o600, is_folder=False, relation=relation, database=database
        )

    def pack(self, files: Sequence[DataFile]) -> dict[str, bytes]:
        """Pack the files, and return what the volumes hold, with parts joined."""
        packer = VolumePacker(
            "backup",
            STARTED,
            StreamEncoder(Codec.NONE),
            self._store,
            self.packed,
            self.volume_size_bytes,
            self._note,
        )
        for bundle in plan_bundles(files, self.volume_size_bytes):
            packer.pack(bundle)
        return self.content()

    def content(self) -> dict[str, bytes]:
        """What the volumes hold, with parts joined in order."""
        return joined_files(self.volumes[volume.item.name] for volume in self.packed.volumes())

    def _store(self, name: str, chunks: Iterable[bytes]) -> StoredBytes:
        self.volumes[name] = b"".join(chunks)
        return StoredBytes.of(self.volumes[name])

    def _note(self, size_bytes: int) -> None:
        self.read_bytes += size_bytes
        self.on_read(self.read_bytes)


def joined_files(volumes: Iterable[bytes]) -> dict[str, bytes]:
    """Return the files of volumes, each a tar, by their paths, with their parts joined in order."""
    parts: dict[tuple[str, int], bytes] = {}
    for volume in volumes:
        with tarfile.open(fileobj=io.BytesIO(volume)) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                parts[split_part_name(member.name) or (member.name, 0)] = stream.read()
    found: dict[str, bytes] = {}
    for (path, _), data in sorted(parts.items()):
        found[path] = found.get(path, b"") + data
    return found
