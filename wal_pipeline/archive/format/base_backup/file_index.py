"""Says which file of a base backup lies in which of its volumes: what a restore needs in order to fetch only some.

The object ``file_index<codec>[.age]`` holds lines of JSON, and is encrypted where the volumes are. The first line is
the header: ``format``, ``version``, ``files`` (how many lines follow) and ``start_lsns``: where replay begins for each
base backup whose volumes are referred to, its own included, by id. Each further line is one file, in the order of the
paths' bytes::

    {"path": "base/5/16384", "size": 8192, "modified_ns": 1764450000000000000, "mode": 384, "crc32c": "e3069283",
     "parts": [[0, 0, 8192, "e3069283"]]}

A part is the number of its volume in the manifest's list, its place in the file and its size, both in bytes, and its
CRC-32C. A whole file is one part, a file without content has one of 0 bytes. ``size`` and the checksums are of what the
volumes hold; ``modified_ns`` is the file's time before it was read. A path that is not UTF-8 has Python's surrogate
escapes. Folders that hold no file are lines with ``"folder": true`` and one part.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.words import read_hex
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.lsn import Lsn

_FORMAT: Final = "wal-pipeline file index"
_VERSION: Final = 1
_CHECKSUM_DIGITS: Final = 8
_PERMISSIONS: Final = 0o7777
# A line of a file, with a path of 1,024 escaped bytes: an index may not have more for each file and part.
MAX_BYTES_A_LINE: Final = 8192


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a file, in volume number ``volume`` of the manifest's list. ``crc32c``: eight hex digits."""

    volume: int
    offset_bytes: int
    size_bytes: int
    crc32c: str


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file, or a folder without files, of a base backup; ``path`` is relative to the data directory.

    ``modified_ns``: nanoseconds since 1970, as the file system gave them before the file was read. ``parts`` cover the
    file without a hole, in order.
    """

    path: str
    size_bytes: int
    modified_ns: int
    mode: int
    crc32c: str
    parts: tuple[FilePart, ...]
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class FileIndex:
    """The files of a base backup by their paths, in order; ``start_lsns`` by the id of each base backup they lie in."""

    files: Mapping[str, IndexedFile]
    start_lsns: Mapping[str, Lsn]

    def by_volume(self) -> dict[int, list[tuple[IndexedFile, FilePart]]]:
        """Return what each volume holds of this base backup, by the volume's number."""
        found: dict[int, list[tuple[IndexedFile, FilePart]]] = {}
        for file in self.files.values():
            for part in file.parts:
                found.setdefault(part.volume, []).append((file, part))
        return found


def index_lines(files: Sequence[IndexedFile], start_lsns: Mapping[str, Lsn]) -> Iterator[bytes]:
    """Yield the object's content line by line; the files come in the order of their paths' bytes."""
    header = {"format": _FORMAT, "version": _VERSION, "files": len(files)}
    yield json_line({**header, "start_lsns": {name: str(lsn) for name, lsn in sorted(start_lsns.items())}})
    for file in sorted(files, key=lambda one: one.path.encode("utf-8", "surrogateescape")):
        yield file_line(file)


def file_line(file: IndexedFile) -> bytes:
    """Return the line of one file."""
    return json_line(_values(file))


def json_line(values: Mapping[str, Any]) -> bytes:
    """Return values as a line of JSON."""
    return json.dumps(values, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"


def _values(file: IndexedFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "size": file.size_bytes,
        "modified_ns": file.modified_ns,
        "mode": file.mode,
        "crc32c": file.crc32c,
        "parts": parts_values(file.parts),
        **({"folder": True} if file.is_folder else {}),
    }


def parts_values(parts: Iterable[FilePart]) -> list[list[Any]]:
    """Return parts as a line has them."""
    return [[part.volume, part.offset_bytes, part.size_bytes, part.crc32c] for part in parts]


def parse_index(lines: Iterable[bytes], manifest: BaseBackupManifest) -> FileIndex:
    """Read the object's lines, which must fit the manifest. Raises: BaseBackupError."""
    try:
        return _parsed(iter(lines), manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseBackupError(
            f"the file index of base backup '{manifest.backup_id}' cannot be used: {type(error).__name__}: {error}",
            hint="The object is damaged or of a newer version of wal-pipeline; use the copy on another store.",
        ) from error


def _parsed(lines: Iterator[bytes], manifest: BaseBackupManifest) -> FileIndex:
    header = json.loads(next(lines, b""))
    if (header["format"], header["version"]) != (_FORMAT, _VERSION):
        raise ValueError(f"expected the format {(_FORMAT, _VERSION)}")
    start_lsns = {str(name): Lsn.parse(text) for name, text in header["start_lsns"].items()}
    if not {volume.backup_id for volume in manifest.volumes} <= start_lsns.keys():
        raise ValueError("a base backup whose volumes it refers to has no start")
    files: dict[str, IndexedFile] = {}
    for line in lines:
        file = parse_file(json.loads(line), len(manifest.volumes))
        if file.path in files:
            raise ValueError(f"'{file.path}' is named twice")
        files[file.path] = file
    if len(files) != header["files"]:
        raise ValueError(f"expected {header['files']} files, found {len(files)}")
    return FileIndex(files, start_lsns)


def parse_file(value: Mapping[str, Any], volumes: int | None = None) -> IndexedFile:
    """Read the values of one line, of a file in ``volumes`` volumes (None: not known). Raises: ValueError."""
    path, size, modified, mode = parse_head(value)
    parts = tuple(parse_part(one, volumes) for one in value["parts"])
    ends = [0, *(part.offset_bytes + part.size_bytes for part in parts)]
    covers = bool(parts) and all(part.offset_bytes == end for part, end in zip(parts, ends, strict=False))
    if not covers or ends[-1] != size:
        raise ValueError(f"the parts of '{path}' do not make up its {size} bytes")
    return IndexedFile(path, size, modified, mode, _checksum(value["crc32c"]), parts, value.get("folder") is True)


def parse_head(value: Mapping[str, Any]) -> tuple[str, int, int, int]:
    """Read the path, size, time and permissions of one line. Raises: ValueError."""
    path, size, modified, mode = value["path"], value["size"], value["modified_ns"], value["mode"]
    if not isinstance(path, str) or not path or not _is_natural(size) or not _is_natural(mode) or mode > _PERMISSIONS:
        raise ValueError(f"{value!r} is not a file")
    if type(modified) is not int:
        raise ValueError(f"'{path}' has no time")
    return path, size, modified, mode


def parse_part(value: Sequence[Any], volumes: int | None = None) -> FilePart:
    """Read one part, of ``volumes`` volumes (None: not known). Raises: ValueError."""
    volume, offset, size, checksum = value
    is_known = volumes is None or volume < volumes
    if not all(map(_is_natural, (volume, offset, size))) or not is_known:
        raise ValueError(f"{value!r} is not a part of one of {volumes} volumes")
    return FilePart(volume, offset, size, _checksum(checksum))


def _checksum(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a checksum")
    return read_hex(value, _CHECKSUM_DIGITS)


def _is_natural(value: object) -> bool:
    return type(value) is int and value >= 0
