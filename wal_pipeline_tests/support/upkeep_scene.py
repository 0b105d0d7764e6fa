"""Builds an archive of weeks for the tests of expire and verify: objects on two stores, catalog, movable clock."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wal_pipeline.archive.format.base_backup.manifest import (
    BackupObject,
    BackupTar,
    BaseBackupManifest,
    WalRange,
    make_backup_id,
)
from wal_pipeline.archive.format.base_backup.manifest_json import to_json
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupKind, Codec, CommitTimes, Copy, CopyStatus, WalFile
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.commands.expire.expire import Expirer
from wal_pipeline.commands.inventory.survey import Surveyor
from wal_pipeline.commands.verify.results import Verification
from wal_pipeline.commands.verify.verify import Verifier
from wal_pipeline.stores.base import Body, Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, require_file_name
from wal_pipeline_tests.support.archive_scene import WatchedStore, folder_store
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER, name_of, segment_bytes
from wal_pipeline_tests.support.upkeep_commands import UpkeepCommands

CLUSTER = "main"
LAYOUT = Layout("", CLUSTER, SYSTEM_IDENTIFIER)
DAY = timedelta(days=1)


@dataclass
class UpkeepScene:
    """``now`` is the clock. ``stores`` are watched folders unless others are given."""

    folder: Path
    inner: Sequence[Store] = ()
    now: datetime = datetime(2040, 3, 1, 12, tzinfo=UTC)  # objects that are stored today are old by then
    rule: RetentionRule = field(default_factory=lambda: RetentionRule(10 * DAY, 1))
    in_spool: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        inner = self.inner or [folder_store(name, self.folder / name) for name in ("r2", "b2")]
        self.stores = {store.name: WatchedStore(store) for store in inner}
        self.catalog: Catalog = open_catalog(f"sqlite:///{self.folder}/catalog.sqlite", CLUSTER, clock=self.clock)
        self.audit = AuditLog(self.folder / "state", self.clock)

    def clock(self) -> datetime:
        return self.now

    # Results of archiving

    def archive(self, number: int, at: datetime, on: Sequence[str] = (), *, recorded: bool = True) -> str:
        """Store a segment that was spooled at a moment, and record it; return its name."""
        return self.store_file(name_of(number), segment_bytes(number), at, on, recorded=recorded)

    def store_file(
        self,
        name: str,
        data: bytes,
        at: datetime,
        on: Sequence[str] = (),
        *,
        recorded: bool = True,
        size: int = SEGMENT_BYTES,
    ) -> str:
        file = describe(name, data, at, size)
        encoded = Encoder(Codec.ZSTD).encode(data)
        copies = []
        for store in on or self.stores:
            key, encoding = store_copy(ClusterStore(self.stores[store].inner, LAYOUT), file, encoded, read_back=False)
            copies.append(
                Copy(name, SYSTEM_IDENTIFIER, store, CopyStatus.VERIFIED, key, encoding, tries=1, verified_at=at)
            )
        if recorded:
            self.catalog.files.record_verified(file, copies)
        self.catalog.system_identifiers.add(SYSTEM_IDENTIFIER, "a test", at)
        return name

    def back_up(
        self,
        number: int,
        at: datetime,
        on: Sequence[str] = (),
        *,
        parent: BaseBackupManifest | None = None,
        size: int = SEGMENT_BYTES,
    ) -> BaseBackupManifest:
        """Store a base backup that begins and ends in a segment, and record it."""
        manifest, parts = base_backup(number, at, parent, size)
        for store in on or self.stores:
            for name, data in parts.items():
                self.stores[store].inner.put_if_absent(LAYOUT.base_key(manifest.backup_id, name), Body.of(data), {})
        copies = [
            BaseBackupCopy(
                manifest.backup_id,
                SYSTEM_IDENTIFIER,
                store,
                CopyStatus.VERIFIED,
                len(parts),
                manifest.stored_size_bytes,
                restorable_at=at,
                verified_at=at,
            )
            for store in on or self.stores
        ]
        self.catalog.base_backups.record(manifest.record(), copies)
        return manifest

    def run_for(self, days: int, *, backup_every: int = 4, begin: int = 1) -> list[BaseBackupManifest]:
        """Let days pass, with a segment a day, and a base backup every ``backup_every`` days in that day's segment."""
        backups = []
        for number in range(begin, begin + days):
            if (number - begin) % backup_every == 0:
                backups.append(self.back_up(number, self.now))
            self.archive(number, self.now)
            self.now += DAY
        return backups

    # The commands

    def commands(self) -> UpkeepCommands:
        return UpkeepCommands(self.stores, self.catalog, CLUSTER, self.audit, self.rule, self.clock, self.folder)

    def surveyor(self) -> Surveyor:
        return self.commands().surveyor()

    def expirer(self, concurrency: int = 1) -> Expirer:
        return self.commands().expirer(concurrency, in_spool=self.in_spool.__contains__)

    def verifier(self) -> Verifier:
        return self.commands().verifier(lambda name: name in self.in_spool, concurrency=2)

    def verify(self, *, share: float | None = None, repair: bool = False) -> Verification:
        return self.verifier().verify(share=share, repair=repair)

    # Contents

    def keys(self, store: str) -> set[str]:
        return {item.key for item in self.stores[store].inner.list("")}

    def files(self, store: str) -> set[str]:
        parsed = (LAYOUT.parse_wal_key(key) for key in self.keys(store))
        return {stored.file.name for stored in parsed if stored is not None}

    def backups(self, store: str) -> set[str]:
        found = self.keys(store)
        ids = {LAYOUT.backup_id_of(key) for key in found}
        return {one for one in ids if one is not None and LAYOUT.manifest_key(one) in found}

    def key_of(self, store: str, name: str) -> str:
        stem = LAYOUT.wal_stem(require_file_name(name))
        [item] = self.stores[store].inner.list(stem)
        return item.key

    def read(self, store: str, key: str) -> bytes:
        with self.stores[store].inner.open(key) as stream:
            return stream.read()

    def replace_object(self, store: str, key: str, data: bytes, like: str | None = None) -> None:
        """Put other bytes under a key, as an accident would, with its metadata or those of the object ``like``."""
        inner = self.stores[store].inner
        found = inner.head(like or key)
        assert found is not None
        inner.delete(key)
        inner.put_if_absent(key, Body.of(data), found.metadata)

    def recorded(self, store: str) -> dict[str, CopyStatus]:
        return {copy.name: copy.status for copy in self.catalog.files.copies() if copy.store == store}


def describe(name: str, data: bytes, at: datetime, size: int = SEGMENT_BYTES) -> WalFile:
    """Describe a file as the archiver does, without its commits."""
    parsed = require_file_name(name)
    common = (name, parsed.kind, SYSTEM_IDENTIFIER, parsed.timeline, len(data), hashlib.sha256(data).hexdigest(), at)
    if parsed.kind is not FileKind.SEGMENT:
        return WalFile(*common)
    return WalFile(*common, size, 18, parsed.start_lsn(size), parsed.end_lsn(size), CommitTimes.UNKNOWN)


def base_backup(
    number: int, at: datetime, parent: BaseBackupManifest | None = None, size: int = SEGMENT_BYTES
) -> tuple[BaseBackupManifest, dict[str, bytes]]:
    """Make a base backup's manifest and its objects."""
    backup_id = make_backup_id(at, require_file_name(name_of(number, size=size)))
    tar, listed = f"the tar of {backup_id}".encode(), b"a list"
    digest = hashlib.sha256(tar).hexdigest()
    start = number * size
    manifest = make_manifest(
        backup_id=backup_id,
        kind=BackupKind.INCREMENTAL if parent else BackupKind.FULL,
        chain=(*parent.chain, parent.backup_id) if parent else (),
        system_identifier=SYSTEM_IDENTIFIER,
        wal_ranges=(WalRange(1, Lsn(start + 0x28), Lsn(start + 0x120)),),
        started_at=at,
        finished_at=at + timedelta(minutes=3),
        wal_segment_size=size,
        codec=Codec.NONE,
        volume_size_bytes=1000,
        tars=(BackupTar("base", len(tar), digest, (BackupObject("base.000000.tar", len(tar), digest, len(tar)),)),),
        backup_manifest=BackupObject("backup_manifest", 6, hashlib.sha256(listed).hexdigest(), 6),
    )
    return manifest, {"base.000000.tar": tar, "backup_manifest": listed, "manifest.json": to_json(manifest)}
