"""Makes a long archive of little weight: records of many segments and daily base backups, with an object for each.

The objects of WAL have one byte each and are put through the servers' own file interface, at a thousand a second: the
measurement is about listing and judging them.
"""

import http.client
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from testbed.ports import LOOPBACK
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.archive.format.base_backup.manifest import (
    BackupObject,
    BackupTar,
    BaseBackupManifest,
    WalRange,
    backup_manifest_name,
    make_backup_id,
    volume_name,
)
from wal_pipeline.archive.format.base_backup.manifest_json import to_json
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupKind, Codec, CommitTimes, Copy, CopyStatus, Encoding, WalFile
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name, segment_name

SYSTEM_IDENTIFIER: Final = 7_000_000_000_000_000_001
SEGMENT_BYTES: Final = 2**20
STORES: Final = ("r2", "b2")
_BATCH: Final = 5000
_BACKUP_EVERY: Final = 1440
_SHA: Final = "c" * 64
_PUT_AT_ONCE: Final = 3


@dataclass(frozen=True, slots=True)
class LongArchive:
    """``number`` segments of 1 MiB, one a minute up to ``until_at``, and a base backup a day."""

    number: int
    until_at: datetime
    layout: Layout

    def record(self, catalog: Catalog) -> None:
        """Put all records into the catalog."""
        catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "benchmark", self.until_at)
        for first in range(1, self.number + 1, _BATCH):
            files = [self._file(number) for number in range(first, min(first + _BATCH, self.number + 1))]
            catalog.files.record_found(files, [self._copy(file, store) for file in files for store in STORES])
        for manifest in self.base_backups():
            catalog.base_backups.record(manifest.record(), [_held(manifest, store) for store in STORES])

    def put(self, pair: S3Pair, buckets: S3Buckets) -> None:
        """Put an object for each record into both buckets."""
        objects = list(self._objects())
        with ThreadPoolExecutor(_PUT_AT_ONCE) as pool:
            for server, bucket in ((pair.r2, buckets.r2), (pair.b2, buckets.b2)):
                shares = (objects[start::_PUT_AT_ONCE] for start in range(_PUT_AT_ONCE))
                list(pool.map(lambda share, port=server.filer_port, to=bucket: _put_all(port, to, share), shares))

    def base_backups(self) -> Iterator[BaseBackupManifest]:
        """Yield the manifests, the oldest first."""
        for number in range(2, self.number - 1, _BACKUP_EVERY):
            yield _manifest(number, self._at(number))

    def _at(self, number: int) -> datetime:
        return self.until_at - timedelta(minutes=self.number - number)

    def _file(self, number: int) -> WalFile:
        name = segment_name(1, number, SEGMENT_BYTES)
        at = self._at(number)
        return WalFile(
            name.name, name.kind, SYSTEM_IDENTIFIER, 1, SEGMENT_BYTES, f"{number:064x}", at,
            wal_segment_size=SEGMENT_BYTES, server_major=18, start_lsn=name.start_lsn(SEGMENT_BYTES),
            end_lsn=name.end_lsn(SEGMENT_BYTES), commit_times=CommitTimes.KNOWN, first_commit_at=at, last_commit_at=at,
        )  # fmt: skip

    def _copy(self, file: WalFile, store: str) -> Copy:
        encoding = Encoding(Codec.ZSTD, False, 1, _SHA, "d" * 32)
        return Copy(
            name=file.name, system_identifier=file.system_identifier, store=store, status=CopyStatus.VERIFIED,
            object_key=self._key(file.name), encoding=encoding, tries=1, last_error=None, verified_at=file.spooled_at,
            store_seconds=0.1, lag_seconds=1.0,
        )  # fmt: skip

    def _key(self, name: str) -> str:
        return self.layout.wal_key(require_file_name(name), Codec.ZSTD, encrypted=False)

    def _objects(self) -> Iterator[tuple[str, bytes]]:
        for number in range(1, self.number + 1):
            yield self._key(segment_name(1, number, SEGMENT_BYTES).name), b"x"
        for manifest in self.base_backups():
            for item in manifest.objects:
                yield self.layout.base_key(manifest.backup_id, item.name), b"x" * item.size_bytes
            yield self.layout.manifest_key(manifest.backup_id), to_json(manifest)


def _manifest(number: int, at: datetime) -> BaseBackupManifest:
    start = Lsn(number * SEGMENT_BYTES + 40)
    codec = Codec.ZSTD
    volume = BackupObject(volume_name("base", 0, codec, encrypted=False), 1000, _SHA, 3000)
    return BaseBackupManifest(
        backup_id=make_backup_id(at, segment_name(1, number, SEGMENT_BYTES)), kind=BackupKind.FULL, chain=(),
        system_identifier=SYSTEM_IDENTIFIER, wal_ranges=(WalRange(1, start, Lsn(start + 256)),),
        started_at=at, finished_at=at + timedelta(seconds=30), label="daily", wal_segment_size=SEGMENT_BYTES,
        server_version=180006, codec=codec, encrypted=False, staged=False, volume_size_bytes=2**30, tablespaces=(),
        tars=(BackupTar("base", 3000, _SHA, (volume,)),),
        backup_manifest=BackupObject(backup_manifest_name(codec, encrypted=False), 10, _SHA, 99),
    )  # fmt: skip


def _held(manifest: BaseBackupManifest, store: str) -> BaseBackupCopy:
    return BaseBackupCopy(
        backup_id=manifest.backup_id, system_identifier=SYSTEM_IDENTIFIER, store=store, status=CopyStatus.VERIFIED,
        objects=3, stored_size_bytes=manifest.stored_size_bytes, restorable_at=manifest.finished_at, last_error=None,
        verified_at=manifest.finished_at,
    )  # fmt: skip


def _put_all(port: int, bucket: str, objects: Sequence[tuple[str, bytes]]) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    for key, body in objects:
        connection.request("PUT", f"/buckets/{bucket}/{key}", body=body)
        answer = connection.getresponse()
        answer.read()
        if answer.status >= http.HTTPStatus.MULTIPLE_CHOICES:
            raise OSError(f"the server answered {answer.status} to '{key}'")
    connection.close()
