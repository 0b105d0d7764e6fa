"""Checks that a base backup's manifest does not contradict itself, whoever wrote it."""

import re
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import (
    BASE_TAR,
    FILES,
    BackupObject,
    BackupTablespace,
    BackupTar,
    BaseBackupManifest,
    backup_manifest_name,
    file_index_name,
    is_backup_id,
    tar_cuts_name,
    volume_name,
)
from wal_pipeline.archive.format.configuration import configuration_name
from wal_pipeline.archive.records import BackupKind, BackupMethod
from wal_pipeline.wal.names import check_wal_segment_size, segment_at

_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_FILES_NAME: Final = re.compile(r"files\.[0-9]{6,}\.tar[.a-z0-9]*\Z")
_TAR_NAME: Final = re.compile(r"(?:base|[1-9][0-9]{0,9})\Z")


def _expect(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(reason)


def check_manifest(manifest: BaseBackupManifest, backup_id: str) -> None:
    """Raise ValueError (or WalPipelineError) where the manifest contradicts itself or has another id."""
    _expect(manifest.backup_id == backup_id, f"it is of base backup '{manifest.backup_id}', expected '{backup_id}'")
    _check_chain(manifest)
    _check_wal(manifest)
    if manifest.method is BackupMethod.LOCAL:
        _check_volumes(manifest)
    else:
        _check_tars(manifest)
    _check_files(manifest)


def _check_chain(manifest: BaseBackupManifest) -> None:
    for name in (manifest.backup_id, *manifest.chain):
        _expect(isinstance(name, str) and is_backup_id(name), f"'{name}' is not the id of a base backup")
    incremental = manifest.kind is BackupKind.INCREMENTAL
    _expect(bool(manifest.chain) == incremental, f"kind '{manifest.kind}' with a chain of {len(manifest.chain)}")
    ordered = (*manifest.chain, manifest.backup_id)
    _expect(list(ordered) == sorted(set(ordered)), "the chain is not in the order of time")


def _check_wal(manifest: BaseBackupManifest) -> None:
    check_wal_segment_size(manifest.wal_segment_size)
    _expect(0 < manifest.system_identifier < 2**64, f"system identifier {manifest.system_identifier}")
    _expect(bool(manifest.wal_ranges), "no WAL range")
    for part in manifest.wal_ranges:
        _expect(part.start_lsn <= part.stop_lsn, f"WAL range from {part.start_lsn} to {part.stop_lsn}")
    for left, right in zip(manifest.wal_ranges, manifest.wal_ranges[1:], strict=False):
        follows = left.timeline < right.timeline and left.stop_lsn == right.start_lsn
        _expect(follows, f"WAL ranges do not follow each other at {right.start_lsn}")
    first = segment_at(manifest.timeline, manifest.start_lsn, manifest.wal_segment_size)
    _expect(manifest.backup_id.endswith(first.name), f"the first segment is '{first.name}'")
    for moment in (manifest.started_at, manifest.finished_at):
        _expect(moment.tzinfo is not None, f"time {moment.isoformat()} without a zone")


def _check_tars(manifest: BaseBackupManifest) -> None:
    expected = [*(space.tar for space in manifest.tablespaces), BASE_TAR]
    _expect([tar.name for tar in manifest.tars] == expected, f"expected the tars {expected}")
    for tar in manifest.tars:
        _check_tar(manifest, tar)
    if manifest.tar_cuts is not None:
        _check_object(manifest.tar_cuts, tar_cuts_name(manifest.codec, encrypted=manifest.encrypted))


def _check_volumes(manifest: BaseBackupManifest) -> None:
    _expect(bool(manifest.objects) and manifest.volume_size_bytes > 0, f"volumes of {manifest.volume_size_bytes} bytes")
    names = [(volume.backup_id, volume.item.name) for volume in manifest.volumes]
    _expect(len(set(names)) == len(names), "a volume is named twice")
    own = [volume.item for volume in manifest.volumes if volume.backup_id == manifest.backup_id]
    _expect(bool(own), "no volume of its own")
    for number, item in enumerate(own):
        _check_object(item, volume_name(FILES, number, manifest.codec, encrypted=manifest.encrypted))
    for volume in manifest.referred:
        _expect(volume.backup_id in manifest.chain, f"volume of base backup '{volume.backup_id}', not of the chain")
        _expect(_FILES_NAME.match(volume.item.name) is not None, f"object '{volume.item.name}' of another base backup")
        _check_object(volume.item, volume.item.name)
    if manifest.file_index is not None:
        _check_object(manifest.file_index, file_index_name(manifest.codec, encrypted=manifest.encrypted))


def _check_files(manifest: BaseBackupManifest) -> None:
    oids = [space.oid for space in manifest.tablespaces]
    _expect(len(set(oids)) == len(oids), "a tablespace is named twice")
    for space in manifest.tablespaces:
        _check_tablespace(space)
    name = backup_manifest_name(manifest.codec, encrypted=manifest.encrypted)
    _check_object(manifest.backup_manifest, name)
    if manifest.configuration is not None:
        _check_object(manifest.configuration, configuration_name(manifest.codec, encrypted=manifest.encrypted))


def _check_tablespace(space: BackupTablespace) -> None:
    parts = space.location.split("/")
    usable = space.location.startswith("/") and ".." not in parts and "\0" not in space.location
    _expect(usable and 0 < space.oid < 2**32, f"tablespace {space.oid} at '{space.location}'")


def _check_tar(manifest: BaseBackupManifest, tar: BackupTar) -> None:
    _expect(_TAR_NAME.match(tar.name) is not None and bool(tar.objects), f"tar '{tar.name}'")
    _expect(_SHA256.match(tar.sha256) is not None, f"tar '{tar.name}' has no SHA-256")
    for number, item in enumerate(tar.objects):
        _check_object(item, volume_name(tar.name, number, manifest.codec, encrypted=manifest.encrypted))
        last = number == len(tar.objects) - 1
        size, limit = item.content_size_bytes, manifest.volume_size_bytes
        _expect(size <= limit if last else size == limit, f"object '{item.name}' holds {size} bytes of tar")
    total = sum(item.content_size_bytes for item in tar.objects)
    _expect(total == tar.size_bytes, f"tar '{tar.name}' has {tar.size_bytes} bytes, its objects {total}")


def _check_object(item: BackupObject, name: str) -> None:
    _expect(item.name == name, f"object '{item.name}', expected '{name}'")
    sizes = item.size_bytes > 0 and item.content_size_bytes > 0
    _expect(sizes and _SHA256.match(item.sha256) is not None, f"object '{item.name}' has no size or SHA-256")
