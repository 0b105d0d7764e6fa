"""Reads ``backup_manifest``: PostgreSQL's own list of a base backup's files, with their sizes and checksums."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wal_pipeline.commands.restore.files.checksums import is_known_algorithm
from wal_pipeline.errors import RestoreError

BACKUP_MANIFEST: Final = "backup_manifest"
_VERSIONS: Final = (1, 2)
_LAST_LINE: Final = re.compile(rb'"Manifest-Checksum": "([0-9a-fA-F]{64})"\}\n?\Z')
_NONE: Final = "NONE"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of PostgreSQL's own manifest, relative to the data directory.

    ``algorithm`` and ``checksum`` are None where the manifest was made without checksums.
    """

    name: str
    size_bytes: int
    algorithm: str | None = None
    checksum: bytes | None = None


@dataclass(frozen=True, slots=True)
class FilesOfManifest:
    """A ``backup_manifest``, whose own checksum was right. ``system_identifier``: from PostgreSQL 17 on."""

    files: Mapping[str, ManifestFile]
    system_identifier: int | None


def read_backup_manifest(path: Path) -> FilesOfManifest:
    """Read and prove a ``backup_manifest`` (backup_manifest.c, parse_manifest.c). Raises: RestoreError."""
    try:
        data = path.read_bytes()
        _require_whole(data)
        values = json.loads(data)
        _require_known(values["PostgreSQL-Backup-Manifest-Version"])
        return FilesOfManifest(_by_name(values["Files"]), _identifier(values.get("System-Identifier")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RestoreError(f"PostgreSQL's manifest '{path}' cannot be read: {error}") from error


def _require_known(version: object) -> None:
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version!r}, expected 1 or 2")


def _by_name(values: Sequence[Mapping[str, Any]]) -> dict[str, ManifestFile]:
    files: dict[str, ManifestFile] = {}
    for one in map(manifest_file, values):
        if one.name in files:
            raise ValueError(f"it names '{one.name}' twice")
        files[one.name] = one
    return files


def _require_whole(data: bytes) -> None:
    """Compare the list with its own checksum: it is of all lines before the last."""
    found = _LAST_LINE.search(data)
    if found is None:
        raise ValueError("it does not end with its checksum")
    digest = hashlib.sha256(data[: found.start()]).digest()
    if digest != bytes.fromhex(found[1].decode("ascii")):
        raise ValueError(f"its SHA-256 is {digest.hex()}, expected {found[1].decode('ascii')}")


def manifest_file(value: Mapping[str, Any]) -> ManifestFile:
    """Read one entry of the list. Raises: ValueError, KeyError, TypeError."""
    encoded, size = value.get("Encoded-Path"), value["Size"]
    name = value["Path"] if encoded is None else os.fsdecode(bytes.fromhex(encoded))
    if not isinstance(name, str) or type(size) is not int or size < 0:
        raise ValueError(f"{dict(value)!r} is not a file")
    algorithm = value.get("Checksum-Algorithm", _NONE)
    if algorithm.upper() == _NONE:
        return ManifestFile(name, size)
    if not is_known_algorithm(algorithm):
        raise ValueError(f"'{name}' has a checksum of the kind '{algorithm}'")
    return ManifestFile(name, size, algorithm, bytes.fromhex(value["Checksum"]))


def _identifier(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise ValueError(f"its system identifier is {value!r}")
    return value
