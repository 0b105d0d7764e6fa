"""Writes a base backup's manifest as JSON once, and reads it strictly.

The last key is the SHA-256 of the JSON without that key. Without it, one flipped bit in a checksum or an LSN would
leave valid JSON that condemns the good copies on all stores. Older manifests without that key, or without
``tar_cuts`` and ``configuration``, are read as they are. What earlier versions of the program cannot read has version
2: they then say that a newer one is needed, and not that the manifest is damaged.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.manifest import (
    FORMAT,
    VERSION,
    VERSION_LOCAL,
    BackupObject,
    BackupTablespace,
    BackupTar,
    BackupVolume,
    BaseBackupManifest,
    WalRange,
)
from wal_pipeline.archive.format.base_backup.manifest_checks import check_manifest
from wal_pipeline.archive.format.keys import MANIFEST_NAME
from wal_pipeline.archive.format.words import typed_fields
from wal_pipeline.archive.records import BackupKind, BackupMethod, Codec
from wal_pipeline.errors import BaseBackupError, LaterFormatError, WalPipelineError
from wal_pipeline.wal.lsn import Lsn

_OWN_SHA256: Final = "manifest_sha256"
_REMOTE_FIELDS: Final[dict[str, type]] = {"staged": bool, "tars": list}
_LOCAL_FIELDS: Final[dict[str, type]] = {"files_size_bytes": int, "volumes": list, "file_index": dict}
_LATER_FIELDS: Final[dict[str, type]] = {"method": str, "note": str}


class _LaterVersionError(ValueError):
    """It is undamaged, and of a version that is not known here."""


def to_json(manifest: BaseBackupManifest) -> bytes:
    """Return the bytes of ``manifest.json``."""
    is_local = manifest.method is BackupMethod.LOCAL
    is_later = is_local or bool(manifest.note)  # an earlier version of the program knows neither
    values: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION_LOCAL if is_later else VERSION,
        "backup_id": manifest.backup_id,
        "kind": manifest.kind.value,
        "chain": list(manifest.chain),
        "system_identifier": str(manifest.system_identifier),
        "wal_ranges": [_range_values(part) for part in manifest.wal_ranges],
        "started_at": manifest.started_at.astimezone(UTC).isoformat(),
        "finished_at": manifest.finished_at.astimezone(UTC).isoformat(),
        "label": manifest.label,
        "wal_segment_size": manifest.wal_segment_size,
        "server_version": manifest.server_version,
        "codec": manifest.codec.value,
        "encrypted": manifest.encrypted,
        "volume_size_bytes": manifest.volume_size_bytes,
        "tablespaces": [{"oid": space.oid, "location": space.location} for space in manifest.tablespaces],
        "backup_manifest": _object_values(manifest.backup_manifest),
        **({"method": manifest.method.value, "note": manifest.note} if is_later else {}),
        **(_local_values(manifest) if is_local else _remote_values(manifest)),
    }
    if manifest.configuration is not None:
        values["configuration"] = _object_values(manifest.configuration)
    return _text({**values, _OWN_SHA256: hashlib.sha256(_text(values)).hexdigest()})


def _remote_values(manifest: BaseBackupManifest) -> dict[str, Any]:
    cuts = {} if manifest.tar_cuts is None else {"tar_cuts": _object_values(manifest.tar_cuts)}
    return {"staged": manifest.staged, "tars": [_tar_values(tar) for tar in manifest.tars], **cuts}


def _local_values(manifest: BaseBackupManifest) -> dict[str, Any]:
    if manifest.file_index is None:
        raise ValueError("a base backup of the method 'local' has a file index")
    return {
        "files_size_bytes": manifest.files_size_bytes,
        "volumes": [_volume_values(volume, manifest.backup_id) for volume in manifest.volumes],
        "file_index": _object_values(manifest.file_index),
    }


def _volume_values(volume: BackupVolume, own_id: str) -> dict[str, Any]:
    elsewhere = {} if volume.backup_id == own_id else {"backup_id": volume.backup_id}
    return {**elsewhere, **_object_values(volume.item)}


def _text(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def _range_values(part: WalRange) -> dict[str, Any]:
    return {"timeline": part.timeline, "start_lsn": str(part.start_lsn), "stop_lsn": str(part.stop_lsn)}


def _object_values(item: BackupObject) -> dict[str, Any]:
    return {
        "name": item.name,
        "size_bytes": item.size_bytes,
        "sha256": item.sha256,
        "content_size_bytes": item.content_size_bytes,
    }


def _tar_values(tar: BackupTar) -> dict[str, Any]:
    volumes = [_object_values(item) for item in tar.objects]
    return {"name": tar.name, "size_bytes": tar.size_bytes, "sha256": tar.sha256, "objects": volumes}


def parse_manifest(data: bytes, *, backup_id: str, where: str = MANIFEST_NAME) -> BaseBackupManifest:
    """Read ``manifest.json`` of the base backup ``backup_id``; ``where`` names the object in errors.

    Refuses another format or version, unknown and missing keys, names that are not ours (so no path can leave
    the folder), and values that contradict each other.

    Raises: LaterFormatError where a newer version of this program wrote it, BaseBackupError otherwise.
    """
    try:
        manifest = _manifest(_undamaged(json.loads(data)))
        check_manifest(manifest, backup_id)
    except _LaterVersionError as error:
        raise LaterFormatError(
            f"manifest '{where}' cannot be used: {error}",
            hint="A newer version of wal-pipeline wrote it: update the program on this host.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, WalPipelineError) as error:
        reason = error.message if isinstance(error, WalPipelineError) else str(error)
        raise BaseBackupError(
            f"manifest '{where}' cannot be used: {reason}",
            hint="The object is damaged or of a newer version of wal-pipeline; use the copy on another store.",
        ) from error
    return manifest


def _undamaged(value: object) -> object:
    """Compare the manifest's own checksum and return the values without it. Raises: ValueError."""
    if not isinstance(value, dict) or _OWN_SHA256 not in value:
        return value
    rest = {name: item for name, item in value.items() if name != _OWN_SHA256}
    found = hashlib.sha256(_text(rest)).hexdigest()
    if found != value[_OWN_SHA256]:
        raise ValueError(f"it is damaged: it has SHA-256 {found}, expected {value[_OWN_SHA256]}")
    return rest


def _is_later(value: object) -> bool:
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        return False
    version = value.get("version")
    return type(version) is int and version > VERSION_LOCAL


def _manifest(value: object) -> BaseBackupManifest:
    is_ours = isinstance(value, Mapping) and value.get("format") == FORMAT
    if not isinstance(value, Mapping) or not is_ours or value.get("version") not in (VERSION, VERSION_LOCAL):
        found = (value.get("format"), value.get("version")) if isinstance(value, Mapping) else type(value).__name__
        kind = _LaterVersionError if _is_later(value) else ValueError
        raise kind(f"expected the format {(FORMAT, VERSION_LOCAL)}, found {found}")
    is_later = value["version"] == VERSION_LOCAL
    is_local = is_later and value.get("method") == BackupMethod.LOCAL.value
    files: dict[str, type] = {**(_LATER_FIELDS if is_later else {}), **(_LOCAL_FIELDS if is_local else _REMOTE_FIELDS)}
    may_lack = ("configuration",) if is_local else ("configuration", "tar_cuts")
    optional: dict[str, type] = {name: dict for name in may_lack if name in value}
    got = typed_fields(
        value,
        "manifest",
        format=str,
        version=int,
        backup_id=str,
        kind=str,
        chain=list,
        system_identifier=str,
        wal_ranges=list,
        started_at=str,
        finished_at=str,
        label=str,
        wal_segment_size=int,
        server_version=int,
        codec=str,
        encrypted=bool,
        volume_size_bytes=int,
        tablespaces=list,
        backup_manifest=dict,
        **files,
        **optional,
    )
    return BaseBackupManifest(
        backup_id=got["backup_id"],
        kind=BackupKind(got["kind"]),
        chain=tuple(got["chain"]),
        system_identifier=int(got["system_identifier"]),
        wal_ranges=tuple(_range(item) for item in got["wal_ranges"]),
        started_at=datetime.fromisoformat(got["started_at"]),
        finished_at=datetime.fromisoformat(got["finished_at"]),
        label=got["label"],
        wal_segment_size=got["wal_segment_size"],
        server_version=got["server_version"],
        codec=Codec(got["codec"]),
        encrypted=got["encrypted"],
        staged=got.get("staged", False),
        volume_size_bytes=got["volume_size_bytes"],
        tablespaces=tuple(
            BackupTablespace(**typed_fields(s, "tablespace", oid=int, location=str)) for s in got["tablespaces"]
        ),
        tars=tuple(_tar(item) for item in got.get("tars", ())),
        backup_manifest=_object(got["backup_manifest"]),
        tar_cuts=_object(got["tar_cuts"]) if "tar_cuts" in got else None,
        configuration=_object(got["configuration"]) if "configuration" in got else None,
        method=BackupMethod(got.get("method", BackupMethod.REMOTE)),
        volumes=tuple(_volume(item, got["backup_id"]) for item in got.get("volumes", ())),
        file_index=_object(got["file_index"]) if is_local else None,
        files_size_bytes=got.get("files_size_bytes", 0),
        note=got.get("note", ""),
    )


def _volume(value: object, own_id: str) -> BackupVolume:
    if not isinstance(value, Mapping):
        raise TypeError(f"volume is {type(value).__name__}, expected dict")
    rest = {name: one for name, one in value.items() if name != "backup_id"}
    return BackupVolume(value.get("backup_id", own_id), _object(rest))


def _range(value: object) -> WalRange:
    got = typed_fields(value, "WAL range", timeline=int, start_lsn=str, stop_lsn=str)
    return WalRange(got["timeline"], Lsn.parse(got["start_lsn"]), Lsn.parse(got["stop_lsn"]))


def _tar(value: object) -> BackupTar:
    got = typed_fields(value, "tar", name=str, size_bytes=int, sha256=str, objects=list)
    return BackupTar(got["name"], got["size_bytes"], got["sha256"], tuple(_object(item) for item in got["objects"]))


def _object(value: object) -> BackupObject:
    return BackupObject(**typed_fields(value, "object", name=str, size_bytes=int, sha256=str, content_size_bytes=int))
