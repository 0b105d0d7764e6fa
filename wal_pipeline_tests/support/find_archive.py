"""Puts the segments of a real server into a folder store, as the archiver does, and searches them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.relations import RelationList
from wal_pipeline.archive.records import Codec, CommitTimes, WalFile
from wal_pipeline.archive.recovery.names.relation_names import RelationNames
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.commands.find.options import FindOptions
from wal_pipeline.commands.find.search import Find
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wal.names import FileKind, require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.restore_archive import describe_file

_READER = PgWaldump()


def folder_store(name: str, folder: Path) -> LocalFolderStore:
    """Return a new folder as a store."""
    folder.mkdir(parents=True, exist_ok=True)
    store = LocalFolderStore(name, folder)
    store.prepare()
    return store


def archive(
    store: Store, layout: Layout, files: Iterable[Path], codec: Codec = Codec.ZSTD, *, with_times: bool = True
) -> None:
    """Store files with what the archiver says of each: its commit times too, unless it had no pg_waldump."""
    for path in files:
        data = path.read_bytes()
        describe = described_file if with_times else _without_times
        described = describe(path, data, layout.system_identifier)
        store_copy(ClusterStore(store, layout), described, Encoder(codec).encode(data), read_back=False)


def archive_pieces(store: Store, layout: Layout, path: Path) -> int:
    """Store the beginning of a segment as two pieces, the second one up to the middle of a record; return its end."""
    data = path.read_bytes()
    used = len(data.rstrip(b"\0"))
    end = used * 2 // 3 // 8 * 8 + 5
    header = parse_long_page_header(path.name, data[:LONG_HEADER_BYTES])
    pieces = cut(
        path.name,
        data,
        [0, 8192 * 3, end],
        system_identifier=layout.system_identifier,
        wal_segment_size=len(data),
        commit_times=CommitTimes.UNKNOWN,
        server_major=header.server_major,
    )
    put_pieces(ClusterStore(store, layout), pieces, data)
    return end


def described_file(path: Path, data: bytes, system_identifier: int) -> WalFile:
    """Describe a file, with the times of a segment's commits by pg_waldump."""
    described = describe_file(path.name, data, system_identifier)
    if described.kind is not FileKind.SEGMENT:
        return described
    assert described.server_major is not None
    assert described.wal_segment_size is not None
    before = path.parent / _before(path.name, described.wal_segment_size)
    span = _READER.inspect(
        path, described.server_major, described.wal_segment_size, previous=before if before.exists() else None
    )
    return replace(
        described,
        commit_times=CommitTimes.KNOWN,
        first_commit_at=None if span is None or span.first is None else span.first.at,
        last_commit_at=None if span is None or span.last is None else span.last.at,
    )


def _without_times(path: Path, data: bytes, system_identifier: int) -> WalFile:
    return describe_file(path.name, data, system_identifier)


def _before(name: str, size: int) -> str:
    parsed = require_file_name(name)
    number = parsed.number(size) - 1
    per_log = (1 << 32) // size
    return f"{name[:8]}{number // per_log:08X}{number % per_log:08X}"


def search(stores: Sequence[Store], layout: Layout, options: FindOptions, lists: Iterable[RelationList] = ()) -> Find:
    """Return a search of an archive."""
    names = RelationNames(lists)
    return Find(options, options.checked(), stores, layout, (), lambda _: (names, ()), lambda: datetime.now(UTC))
