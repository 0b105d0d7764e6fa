"""Makes base backup manifests for tests."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wal_pipeline.archive.format.base_backup.manifest import (
    FILES,
    BackupObject,
    BackupTar,
    BackupVolume,
    BaseBackupManifest,
    WalRange,
    backup_manifest_name,
    file_index_name,
    make_backup_id,
    tar_cuts_name,
    volume_name,
)
from wal_pipeline.archive.format.configuration import configuration_name
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupKind, BackupMethod, Codec
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at

SHA = "ab" * 32
MIB = 1 << 20
STARTED_AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)


def make_tar(name: str, volumes: list[int], codec: Codec, encrypted: bool) -> BackupTar:
    """Return a tar with volumes of these sizes."""
    objects = tuple(
        BackupObject(volume_name(name, number, codec, encrypted=encrypted), size // 3 + 1, SHA, size)
        for number, size in enumerate(volumes)
    )
    return BackupTar(name, sum(volumes), SHA, objects)


def make_manifest(**changes: Any) -> BaseBackupManifest:
    """Return the manifest of a full base backup with two volumes."""
    codec, encrypted = changes.get("codec", Codec.ZSTD), changes.get("encrypted", False)
    values: dict[str, Any] = {
        "backup_id": make_backup_id(STARTED_AT, segment_at(1, Lsn.parse("0/2000028"), 16 * MIB)),
        "kind": BackupKind.FULL,
        "chain": (),
        "system_identifier": 7575757575757575757,
        "wal_ranges": (WalRange(1, Lsn.parse("0/2000028"), Lsn.parse("0/2000120")),),
        "started_at": STARTED_AT,
        "finished_at": STARTED_AT + timedelta(minutes=3),
        "label": "nightly",
        "wal_segment_size": 16 * MIB,
        "server_version": 180006,
        "codec": codec,
        "encrypted": encrypted,
        "staged": False,
        "volume_size_bytes": 1000,
        "tablespaces": (),
        "tars": (make_tar("base", [1000, 24], codec, encrypted),),
        "backup_manifest": BackupObject(backup_manifest_name(codec, encrypted=encrypted), 10, SHA, 99),
    }
    return BaseBackupManifest(**{**values, **changes})


PARENT_ID = make_backup_id(STARTED_AT - timedelta(days=1), segment_at(1, Lsn.parse("0/1000028"), 16 * MIB))


def make_local_manifest(*, own: int = 1, referred: int = 0, **changes: Any) -> BaseBackupManifest:
    """Return the manifest of a base backup of the method ``local``: its own volumes, then those of an earlier one."""
    codec, encrypted = changes.get("codec", Codec.ZSTD), changes.get("encrypted", False)
    backup_id = make_backup_id(STARTED_AT, segment_at(1, Lsn.parse("0/2000028"), 16 * MIB))

    def volume(home: str, number: int) -> BackupVolume:
        return BackupVolume(home, BackupObject(volume_name(FILES, number, codec, encrypted=encrypted), 400, SHA, 1000))

    values: dict[str, Any] = {
        "backup_id": backup_id,
        "kind": BackupKind.INCREMENTAL if referred else BackupKind.FULL,
        "chain": (PARENT_ID,) if referred else (),
        "tars": (),
        "method": BackupMethod.LOCAL,
        "volumes": tuple([volume(backup_id, n) for n in range(own)] + [volume(PARENT_ID, n) for n in range(referred)]),
        "file_index": BackupObject(file_index_name(codec, encrypted=encrypted), 8, SHA, 80),
        "files_size_bytes": 5000,
    }
    return make_manifest(**{**values, **changes})


LAYOUT = Layout("", "main", 7575757575757575757)


def stored_object(
    folder: Path, codec: Codec, stored: bytes, content_size: int, *, encrypted: bool
) -> tuple[LocalFolderStore, BaseBackupManifest, BackupObject]:
    """Return a store that holds one volume."""
    folder.mkdir(exist_ok=True)
    store = LocalFolderStore("r2", folder)
    store.prepare()
    manifest = make_manifest(
        codec=codec, encrypted=encrypted, kind=BackupKind.FULL, wal_ranges=(WalRange(1, Lsn(1), Lsn(2)),)
    )
    name = volume_name("base", 0, codec, encrypted=encrypted)
    body = Body.of(stored)
    store.put_if_absent(LAYOUT.base_key(manifest.backup_id, name), body, {})
    return store, manifest, BackupObject(name, len(stored), body.sha256, content_size)


def make_cuts(codec: Codec, encrypted: bool) -> BackupObject:
    """The object with the tars' cuts."""
    return BackupObject(tar_cuts_name(codec, encrypted=encrypted), 5, SHA, 9)


def make_configuration(codec: Codec, encrypted: bool) -> BackupObject:
    """The object with the configuration files outside the data directory."""
    return BackupObject(configuration_name(codec, encrypted=encrypted), 6, SHA, 11)
