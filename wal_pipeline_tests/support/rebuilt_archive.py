"""Makes archives whose catalog is rebuilt."""

import hashlib

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import to_metadata
from wal_pipeline.archive.records import Codec, Encoding, WalFile
from wal_pipeline.stores.base import Body, Store
from wal_pipeline.wal.names import parse_file_name


def put(store: Store, key: str, data: bytes = b"anything", metadata: dict[str, str] | None = None) -> None:
    digests = hashlib.md5(data, usedforsecurity=False).digest(), hashlib.sha256(data).hexdigest()
    store.put_if_absent(key, Body(data, *digests), metadata or {})


def archive(
    store: Store,
    file: WalFile,
    data: bytes = b"stored bytes",
    *,
    stored_size: int | None = None,
    prefix: str = "backups",
) -> Encoding:
    """Store bytes as a file's compressed content, with true metadata unless ``stored_size`` differs."""
    encoding = Encoding(
        codec=Codec.ZSTD,
        encrypted=False,
        size_bytes=len(data) if stored_size is None else stored_size,
        sha256=hashlib.sha256(data).hexdigest(),
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )
    put(store, key_of(file, prefix), data, to_metadata(file, encoding))
    return encoding


def key_of(file: WalFile, prefix: str = "backups") -> str:
    name = parse_file_name(file.name)
    assert name is not None
    return Layout(prefix, "main", file.system_identifier).wal_key(name, Codec.ZSTD, encrypted=False)
