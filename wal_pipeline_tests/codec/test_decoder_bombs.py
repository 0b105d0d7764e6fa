"""A small object that opens to a gigabyte, or a huge one: refused with its name, in little memory and disk space."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import lz4.frame
import pyrage
import pytest
import zstandard
from zlib_ng import zlib_ng

from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.records import Codec, WalFile
from wal_pipeline.codec.decoder import MAX_STORED_BYTES
from wal_pipeline.codec.encoder import describe
from wal_pipeline.commands.archive_get.wal_source import WalSource, WalUnreachableError
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.commands.copies.read import read_source
from wal_pipeline.commands.restore.download import BaseBackupSource
from wal_pipeline.commands.verify.read_copy import CopyReader
from wal_pipeline.commands.verify.results import FaultKind
from wal_pipeline.errors import CodecError, DamagedCopyError, RestoreError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.manifests import LAYOUT as BACKUP_LAYOUT
from wal_pipeline_tests.support.manifests import stored_object
from wal_pipeline_tests.support.restore_archive import (
    LAYOUT,
    SEGMENT_SIZE,
    WatchedStore,
    describe_file,
    name_of,
    segment_bytes,
)

GIB = 1 << 30
LITTLE_BYTES = 32 << 20
NAME = "000000010000000000000003"
HISTORY = "00000002.history"
CODECS = [Codec.GZIP, Codec.ZSTD, Codec.LZ4]
COMPRESS: dict[Codec, Callable[[bytes], bytes]] = {
    Codec.GZIP: lambda data: bytes(zlib_ng.compress(data, 1, 31)),
    Codec.ZSTD: lambda data: zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data),
    Codec.LZ4: lambda data: bytes(lz4.frame.compress(data, content_checksum=True)),
}


@cache
def zeros(codec: Codec) -> bytes:
    """Return a gigabyte of zeros, compressed as one frame."""
    return COMPRESS[codec](bytes(GIB))


@cache
def zeros_sha256() -> str:
    """Return the SHA-256 of a gigabyte of zeros."""
    return hashlib.sha256(bytes(GIB)).hexdigest()


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail where the block takes much memory at any moment."""
    tracemalloc.start(1)
    try:
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < LITTLE_BYTES


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    """The only store of the archive."""
    return WatchedStore("r2", tmp_path / "r2")


def put(store: WatchedStore, codec: Codec, stored: bytes, file: WalFile) -> str:
    """Store bytes as a file's copy, with metadata that is true of them in each word."""
    key = LAYOUT.wal_key(require_file_name(file.name), codec, encrypted=False)
    store.add_bare(key, stored, to_metadata(file, describe(stored, codec, encrypted=False).encoding))
    return key


def a_gibibyte(name: str) -> WalFile:
    """Describe a file of PostgreSQL's largest segment size, with zeros for content."""
    described = describe_file(NAME, segment_bytes(NAME))
    parsed = require_file_name(NAME)
    huge = replace(
        described,
        size_bytes=GIB,
        sha256=zeros_sha256(),
        wal_segment_size=GIB,
        start_lsn=parsed.start_lsn(GIB),
        end_lsn=parsed.end_lsn(GIB),
    )
    if name == NAME:
        return huge
    return replace(describe_file(name, b"1\t0/1000000\tno reason\n"), size_bytes=GIB, sha256=zeros_sha256())


def refused(store: WatchedStore, name: str) -> str:
    """Fetch as PostgreSQL's restore_command does, and return why the only copy is refused."""
    with little_memory(), pytest.raises(WalUnreachableError) as raised:
        WalSource(LAYOUT, (store,)).fetch(name_of(name))
    return raised.value.faults[0].message


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_with_true_metadata_are_no_segment(store: WatchedStore, codec: Codec) -> None:
    """Size, checksums and lengths are all right: the first page tells, before the rest is opened."""
    key = put(store, codec, zeros(codec), a_gibibyte(NAME))
    message = refused(store, NAME)
    assert message.startswith(f"r2: object '{key}' cannot be used: '{NAME}' does not begin with a WAL page: ")


@pytest.mark.parametrize("codec", CODECS)
def test_a_true_first_page_bounds_what_is_opened(store: WatchedStore, codec: Codec) -> None:
    """A segment's own first page says how long it is: what goes on behind that is not opened."""
    stored = COMPRESS[codec](segment_bytes(NAME) + bytes(64 << 20))
    key = put(store, codec, stored, a_gibibyte(NAME))
    assert refused(store, NAME) == (
        f"r2: object '{key}' cannot be used: {codec} data opens to more than {SEGMENT_SIZE} bytes"
    )


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_without_metadata_are_refused(store: WatchedStore, codec: Codec) -> None:
    """Where metadata was lost there is no size to go by: the first page tells."""
    store.add_bare(LAYOUT.wal_key(name_of(NAME), codec, encrypted=False), zeros(codec))
    assert "does not begin with a WAL page" in refused(store, NAME)


@pytest.mark.parametrize("codec", CODECS)
def test_a_history_file_is_a_short_text(store: WatchedStore, codec: Codec) -> None:
    """A timeline history file of a gigabyte is refused, whatever its metadata says."""
    key = put(store, codec, zeros(codec), a_gibibyte(HISTORY))
    assert refused(store, HISTORY) == (
        f"r2: object '{key}' cannot be used: {codec} data opens to more than {1 << 20} bytes"
    )


@pytest.mark.parametrize("name", [NAME, HISTORY])
@pytest.mark.parametrize("codec", CODECS)
def test_verification_does_not_open_it(store: WatchedStore, codec: Codec, name: str) -> None:
    """A deep verification tells the fault."""
    key = put(store, codec, zeros(codec), a_gibibyte(name))
    with little_memory():
        found = CopyReader(()).read_wal(ClusterStore(store, LAYOUT), name, key, None)
    assert found.fault is not None
    expected = (FaultKind.REPLACED, "holds something else") if name == NAME else (FaultKind.CORRUPT, "cannot be opened")
    assert found.fault.kind is expected[0]
    assert found.fault.message.startswith(f"r2: object '{key}' {expected[1]}: ")


def test_an_object_larger_than_any_segment_is_not_read(store: WatchedStore) -> None:
    """Neither a fetch, nor a verification, nor a refill begins to download it."""
    file = a_gibibyte(NAME)
    key = put(store, Codec.NONE, b"x", file)
    path = store.path_of(key)
    path.chmod(0o600)
    os.truncate(path, MAX_STORED_BYTES + 1)  # takes no space on the disk
    said = f"object '{key}' has {MAX_STORED_BYTES + 1} bytes"
    assert refused(store, NAME) == f"r2: {said}, more than any WAL file"
    with little_memory():
        found = CopyReader(()).read_wal(ClusterStore(store, LAYOUT), NAME, key, None)
        assert found.fault is not None
        assert said in found.fault.message
        with pytest.raises(DamagedCopyError, match=f"{said}, more than any WAL file"):
            read_source(ClusterStore(store, LAYOUT), name_of(NAME))


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_a_base_backups_object_is_opened_up_to_its_size(tmp_path: Path, codec: Codec, encrypted: bool) -> None:
    """The manifest says how much an object opens to: no more than that is passed on, in small pieces."""
    identity = pyrage.x25519.Identity.generate()
    bomb = bytes(pyrage.encrypt(zeros(codec), [identity.to_public()])) if encrypted else zeros(codec)
    store, manifest, item = stored_object(tmp_path / "store", codec, bomb, 1 << 20, encrypted=encrypted)
    taken = 0

    def sink(data: bytes) -> None:
        nonlocal taken
        taken += len(data)

    with little_memory(), pytest.raises(CodecError) as raised:
        open_object(ClusterStore(store, BACKUP_LAYOUT), manifest, item, identities=[identity], sink=sink)
    assert raised.value.message.endswith(f"/{item.name}': it opens to more than {1 << 20} bytes")
    assert taken <= 1 << 20


def test_a_restore_downloads_no_more_than_the_manifest_says(tmp_path: Path) -> None:
    """An object that is longer than it should be fills no disk: the download ends where it should have ended."""
    store, manifest, item = stored_object(tmp_path / "store", Codec.ZSTD, b"x" * 1000, 5000, encrypted=False)
    path = tmp_path / "store" / "objects" / BACKUP_LAYOUT.base_key(manifest.backup_id, item.name)
    path.chmod(0o600)
    os.truncate(path, 100 * GIB)  # takes no space on the disk
    staging, downloaded = tmp_path / "staging", []
    staging.mkdir()
    source = BaseBackupSource(
        replace(manifest, backup_manifest=item), BACKUP_LAYOUT, [store], staging=staging, on_bytes=downloaded.append
    )
    with little_memory(), pytest.raises(RestoreError, match="could not be had from any store"):
        source.write_backup_manifest(tmp_path / "backup_manifest")
    assert max(downloaded) <= 1 << 20
    assert sum(downloaded) == 0  # what was downloaded in vain does not count as progress
    assert list(staging.iterdir()) == []
