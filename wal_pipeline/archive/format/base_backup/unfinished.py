"""Describes the volumes and files that a running base backup has stored, so that the next one can go on with them.

Objects ``file_index.part.000000<codec>[.age]``, ``file_index.part.000001…`` lie beside the volumes until the manifest
is there. Each tells of some volumes, and of files that lie in them and in those of the parts before. They are lines of
JSON: a header with ``format``, ``version``, ``start_lsn`` and ``volumes``, each its number, name, size, SHA-256 and
content size, then files as in the index (file_index.py), whose numbers are those of the volumes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import IndexedFile, file_line, parse_file
from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.format.keys import ENCRYPTED_SUFFIX
from wal_pipeline.archive.format.words import read_hex
from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.lsn import Lsn

_FORMAT: Final = "wal-pipeline unfinished file index"
_VERSION: Final = 1
_SHA256_DIGITS: Final = 64
_NAME: Final = re.compile(r"file_index\.part\.([0-9]{6,})(?=\.|\Z)")


def index_part_name(number: int, codec: Codec, *, encrypted: bool) -> str:
    """Return the name of part ``number`` below the base backup's prefix."""
    return f"file_index.part.{number:06d}{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"


def is_index_part(name: str) -> bool:
    """Say whether an object of that name tells of an unfinished base backup."""
    return _NAME.match(name) is not None


@dataclass(slots=True)
class UnfinishedIndex:
    """The content of one or several parts: ``volumes`` by their numbers, and ``files`` by their paths."""

    start_lsn: Lsn
    volumes: dict[int, BackupObject] = field(default_factory=dict)
    files: dict[str, IndexedFile] = field(default_factory=dict)

    def add(self, other: "UnfinishedIndex") -> None:
        """Take what a later part of the same base backup tells. Raises: BaseBackupError where it is of another one."""
        if other.start_lsn != self.start_lsn:
            raise BaseBackupError(f"a part of the index begins at {other.start_lsn}, expected {self.start_lsn}")
        self.volumes |= other.volumes
        self.files |= other.files


def index_part_lines(
    start_lsn: Lsn, volumes: Mapping[int, BackupObject], files: Iterable[IndexedFile]
) -> Iterator[bytes]:
    """Yield the object's content line by line."""
    described = [
        [number, one.name, one.size_bytes, one.sha256, one.content_size_bytes] for number, one in volumes.items()
    ]
    header = {"format": _FORMAT, "version": _VERSION, "start_lsn": str(start_lsn), "volumes": described}
    yield json.dumps(header, separators=(",", ":")).encode("ascii") + b"\n"
    yield from map(file_line, files)


def parse_index_part(lines: Iterable[bytes]) -> UnfinishedIndex:
    """Read one object's lines. Raises: BaseBackupError."""
    try:
        return _parsed(iter(lines))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseBackupError(f"a part of the index cannot be used: {type(error).__name__}: {error}") from error


def _parsed(lines: Iterator[bytes]) -> UnfinishedIndex:
    header = json.loads(next(lines, b""))
    if (header["format"], header["version"]) != (_FORMAT, _VERSION):
        raise ValueError(f"expected the format {(_FORMAT, _VERSION)}")
    files = [parse_file(json.loads(line)) for line in lines]
    volumes = dict(map(_volume, header["volumes"]))
    return UnfinishedIndex(Lsn.parse(header["start_lsn"]), volumes, {file.path: file for file in files})


def _volume(value: Sequence[Any]) -> tuple[int, BackupObject]:
    number, name, size_bytes, sha256, content_size_bytes = value
    if any(type(one) is not int or one < 0 for one in (number, size_bytes, content_size_bytes)):
        raise ValueError(f"{value!r} is not a volume")
    return number, BackupObject(str(name), size_bytes, read_hex(sha256, _SHA256_DIGITS), content_size_bytes)
