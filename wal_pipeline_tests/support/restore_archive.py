"""Makes archives for the restore tests: segments with real page headers, stored by the program's own code."""

import hashlib
import struct
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Codec, CommitTimes, WalFile
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.stores.base import Body, StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wal.names import FileKind, WalFileName, require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header

SYSTEM_IDENTIFIER = 7612345678901234567
LAYOUT = Layout("", "main", SYSTEM_IDENTIFIER)
SEGMENT_SIZE = 1 << 20
SPOOLED_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def segment_bytes(name: str, system_identifier: int = SYSTEM_IDENTIFIER) -> bytes:
    """Return a 1 MiB segment of PostgreSQL 18: a true long page header, then its name again and again."""
    parsed = require_file_name(name)
    start = parsed.start_lsn(SEGMENT_SIZE)
    header = struct.pack(
        "<HHIQIxxxxQII", 0xD118, 0x0002, parsed.timeline, start, 0, system_identifier, SEGMENT_SIZE, 8192
    )
    body = name.encode() * (SEGMENT_SIZE // len(name) + 1)
    return (header + body)[:SEGMENT_SIZE]


def describe_file(name: str, data: bytes, system_identifier: int = SYSTEM_IDENTIFIER) -> WalFile:
    """Describe a file as the archiver does, without its commits."""
    parsed = require_file_name(name)
    common = (name, parsed.kind, system_identifier, parsed.timeline, len(data), hashlib.sha256(data).hexdigest())
    if parsed.kind not in (FileKind.SEGMENT, FileKind.PARTIAL):
        return WalFile(*common, SPOOLED_AT)
    header = parse_long_page_header(name, data[:LONG_HEADER_BYTES])
    size = header.wal_segment_size
    return WalFile(
        *common,
        SPOOLED_AT,
        wal_segment_size=size,
        server_major=header.server_major,
        start_lsn=parsed.start_lsn(size),
        end_lsn=parsed.end_lsn(size),
        commit_times=CommitTimes.UNKNOWN,
    )


class WatchedStore(LocalFolderStore):
    """A local folder as a store, which can be made unavailable and counts its calls."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(name, folder)
        self.prepare()
        self.folder = folder
        self.down = False
        self.calls: list[str] = []

    def _ask(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise StoreUnavailableError(self.name, "no answer")

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[StoredObject]:
        """See ``Store``."""
        self._ask("list")
        return super().list(prefix, start_after=start_after)

    def head(self, key: str) -> StoredObject | None:
        """See ``Store``."""
        self._ask("head")
        return super().head(key)

    def add(self, name: str, data: bytes | None = None, codec: Codec = Codec.ZSTD) -> str:
        """Archive one file and return its key."""
        content = segment_bytes(name) if data is None else data
        key, _ = store_copy(
            ClusterStore(self, LAYOUT), describe_file(name, content), Encoder(codec).encode(content), read_back=False
        )
        return key

    def add_bare(self, key: str, stored: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Store bytes under a key as another tool would, with these metadata or none."""
        self.put_if_absent(key, Body.of(stored), metadata or {})

    def path_of(self, key: str) -> Path:
        """Return the file that holds an object's bytes."""
        return self.folder / "objects" / key

    def metadata_of(self, key: str) -> Mapping[str, str]:
        """Return an object's metadata."""
        found = super().head(key)
        assert found is not None
        return found.metadata


def read_all(stream: BinaryIO) -> bytes:
    """Return the rest of a stream."""
    return stream.read()


def name_of(text: str) -> WalFileName:
    """Parse a file name."""
    return require_file_name(text)


NAME = "000000010000000000000003"


def run_line(line: str, cwd: Path, environment: Mapping[str, str] | None = None) -> int:
    """Replace the placeholders, and run the line as ``system()`` does."""
    expanded = line.replace("%%", "\0").replace("%f", NAME).replace("%p", "pg_wal/RECOVERYXLOG").replace("\0", "%")
    command = ["sh", "-c", expanded]
    return subprocess.run(command, check=False, cwd=cwd, timeout=30, capture_output=True, env=environment).returncode
