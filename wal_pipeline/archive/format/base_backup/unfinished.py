"""Describes the volumes and files that a running base backup has stored, so that the next one can go on with them.

Objects ``file_index.part.000000<codec>[.age]``, ``file_index.part.000001…`` lie beside the volumes until the manifest
is there. Each tells of some volumes, and of files that lie in them and in those of the parts before. They are lines of
JSON: a header with ``format``, ``version``, ``start_lsn`` and ``volumes``, each its number, name, size, SHA-256 and
content size, then files as in the index (file_index.py), whose numbers are those of the volumes.

While a file that is larger than a volume is read, lines with ``"begun": true`` and without ``crc32c`` have those of its
parts that were stored since the last such line. The line of the whole file takes their place. Version 1 has no such
lines.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.file_index import (
    FilePart,
    IndexedFile,
    file_line,
    json_line,
    parse_file,
    parse_head,
    parse_part,
    parts_values,
)
from wal_pipeline.archive.format.base_backup.manifest import BackupObject
from wal_pipeline.archive.format.keys import ENCRYPTED_SUFFIX
from wal_pipeline.archive.format.words import read_hex
from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.lsn import Lsn

_FORMAT: Final = "wal-pipeline unfinished file index"
_VERSION: Final = 2
_VERSIONS: Final = (1, _VERSION)
_SHA256_DIGITS: Final = 64
_NAME: Final = re.compile(r"file_index\.part\.([0-9]{6,})(?=\.|\Z)")


def index_part_name(number: int, codec: Codec, *, encrypted: bool) -> str:
    """Return the name of part ``number`` below the base backup's prefix."""
    return f"file_index.part.{number:06d}{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"


def is_index_part(name: str) -> bool:
    """Say whether an object of that name tells of an unfinished base backup."""
    return _NAME.match(name) is not None


@dataclass(frozen=True, slots=True)
class BegunFile:
    """A file of which only some parts are stored so far, in the order of their places; there may be holes between them.

    ``size_bytes`` and ``modified_ns`` are those of the whole file when it was opened.
    """

    path: str
    size_bytes: int
    modified_ns: int
    mode: int
    parts: tuple[FilePart, ...]

    def with_more(self, later: "BegunFile") -> "BegunFile":
        """Return the file with parts that were stored later.

        Raises: BaseBackupError where those are of another state of it, or lie in these.
        """
        if (later.path, later.size_bytes, later.modified_ns) != (self.path, self.size_bytes, self.modified_ns):
            raise BaseBackupError(f"the parts of '{self.path}' are of different states of it")
        if self.parts and later.parts and later.parts[0].offset_bytes < _end(self.parts[-1]):
            raise BaseBackupError(f"the parts of '{self.path}' overlap")
        return replace(later, parts=(*self.parts, *later.parts))


@dataclass(slots=True)
class UnfinishedIndex:
    """The content of one or several parts: ``volumes`` by their numbers, ``files`` and ``begun`` by their paths."""

    start_lsn: Lsn
    volumes: dict[int, BackupObject] = field(default_factory=dict)
    files: dict[str, IndexedFile] = field(default_factory=dict)
    begun: dict[str, BegunFile] = field(default_factory=dict)

    def add(self, other: "UnfinishedIndex") -> None:
        """Take what a later part of the same base backup tells. Raises: BaseBackupError where it is of another one."""
        if other.start_lsn != self.start_lsn:
            raise BaseBackupError(f"a part of the index begins at {other.start_lsn}, expected {self.start_lsn}")
        self.volumes |= other.volumes
        self.files |= other.files
        for path, later in other.begun.items():
            known = self.begun.get(path)
            self.begun[path] = later if known is None else known.with_more(later)
        for path in other.files:
            self.begun.pop(path, None)


def index_part_lines(
    start_lsn: Lsn,
    volumes: Mapping[int, BackupObject],
    files: Iterable[IndexedFile],
    begun: Iterable[BegunFile] = (),
) -> Iterator[bytes]:
    """Yield the object's content line by line."""
    described = [
        [number, one.name, one.size_bytes, one.sha256, one.content_size_bytes] for number, one in volumes.items()
    ]
    header = {"format": _FORMAT, "version": _VERSION, "start_lsn": str(start_lsn), "volumes": described}
    yield json_line(header)
    yield from map(file_line, files)
    yield from map(_begun_line, begun)


def parse_index_part(lines: Iterable[bytes]) -> UnfinishedIndex:
    """Read one object's lines. Raises: BaseBackupError."""
    try:
        return _parsed(iter(lines))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseBackupError(f"a part of the index cannot be used: {type(error).__name__}: {error}") from error


def _parsed(lines: Iterator[bytes]) -> UnfinishedIndex:
    header = json.loads(next(lines, b""))
    if header["format"] != _FORMAT or header["version"] not in _VERSIONS:
        raise ValueError(f"expected the format '{_FORMAT}' of one of the versions {_VERSIONS}")
    found = UnfinishedIndex(Lsn.parse(header["start_lsn"]), dict(map(_volume, header["volumes"])))
    for line in lines:
        value = json.loads(line)
        if value.get("begun") is True:
            begun = _parse_begun(value)
            found.begun[begun.path] = begun
        else:
            file = parse_file(value)
            found.files[file.path] = file
    return found


def _begun_line(file: BegunFile) -> bytes:
    return json_line(
        {
            "path": file.path,
            "size": file.size_bytes,
            "modified_ns": file.modified_ns,
            "mode": file.mode,
            "begun": True,
            "parts": parts_values(file.parts),
        }
    )


def _parse_begun(value: Mapping[str, Any]) -> BegunFile:
    path, size, modified, mode = parse_head(value)
    parts = tuple(map(parse_part, value["parts"]))
    ends = [0, *map(_end, parts)]
    if any(part.offset_bytes < end for part, end in zip(parts, ends, strict=False)) or ends[-1] > size:
        raise ValueError(f"the parts of '{path}' do not lie in its {size} bytes, one after the other")
    return BegunFile(path, size, modified, mode, parts)


def _end(part: FilePart) -> int:
    return part.offset_bytes + part.size_bytes


def _volume(value: Sequence[Any]) -> tuple[int, BackupObject]:
    number, name, size_bytes, sha256, content_size_bytes = value
    if any(type(one) is not int or one < 0 for one in (number, size_bytes, content_size_bytes)):
        raise ValueError(f"{value!r} is not a volume")
    return number, BackupObject(str(name), size_bytes, read_hex(sha256, _SHA256_DIGITS), content_size_bytes)
