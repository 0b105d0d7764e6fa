"""Finds out which files of a folder are already what a base backup has, many at a time."""

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.commands.restore.files.checksums import (
    READ_BYTES,
    checksum_of_file,
    crc32c_hex,
    extend_crc32c,
    join_crc32c,
)
from wal_pipeline.commands.restore.files.listed_files import ManifestFile
from wal_pipeline.commands.restore.files.on_disk import FilePlaces
from wal_pipeline.commands.restore.files.volume_tar import WantedPart, file_mode
from wal_pipeline.commands.restore.files.workers import Workers
from wal_pipeline.errors import RestoreError

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_GROUP_FILES: Final = 64
_GROUP_BYTES: Final = 8 << 20


@dataclass(slots=True)
class Compared:
    """The result: what is not right, by the volume in which it lies, and the checksums of the files that are right.

    ``kept_bytes`` were read and are right.
    """

    wanted: dict[int, list[WantedPart]] = field(default_factory=dict)
    right: dict[str, str] = field(default_factory=dict)
    kept_bytes: int = 0


def all_wanted(files: Iterable[IndexedFile]) -> Compared:
    """Return the result for a folder in which nothing is."""
    compared = Compared()
    for file in files:
        for part in file.parts:
            compared.wanted.setdefault(part.volume, []).append(WantedPart(file, part))
    return compared


def compare_files(files: Iterable[IndexedFile], places: FilePlaces, *, workers: int) -> Compared:
    """Compare the files on the disk with the index: sizes first, then contents, each part of a file by itself.

    A file that is longer is cut to its size, and one that cannot be opened is removed. Nothing else is written. A part
    that cannot be read is not right. Raises: RestoreError.
    """
    compared = Compared()
    lock = threading.Lock()
    team = Workers[list[IndexedFile]](workers, "compare")

    def compare(group: list[IndexedFile]) -> None:
        for file in group:
            wrong, crc32c = _wrong_parts(file, places.path(file.path), team.go_on)
            with lock:
                compared.kept_bytes += file.size_bytes - sum(part.size_bytes for part in wrong)
                for part in wrong:
                    compared.wanted.setdefault(part.volume, []).append(WantedPart(file, part))
                if not wrong:
                    compared.right[file.path] = crc32c

    try:
        team.run(compare, _groups(files, lambda file: file.size_bytes))
    except OSError as error:
        raise RestoreError(f"'{error.filename}' cannot be compared: {error.strerror}") from error
    return compared


def right_of_manifest(files: Mapping[str, ManifestFile], places: FilePlaces, *, workers: int) -> dict[str, bytes]:
    """Return the checksums of the files that are already what PostgreSQL's manifest says, by their names.

    One without a checksum is not known to be right, nor is one that cannot be read. Raises: RestoreError.
    """
    right: dict[str, bytes] = {}
    team = Workers[list[ManifestFile]](workers, "compare")

    def compare(group: list[ManifestFile]) -> None:
        for file in group:
            path = places.path(file.name)
            if file.algorithm is None or _size(path) != file.size_bytes:
                continue
            try:
                found = checksum_of_file(path, file.algorithm, team.go_on)
            except OSError as error:
                _log.warning("'%s' cannot be read, and is written anew: %s", path, error.strerror)
                continue
            if found == file.checksum:
                right[file.name] = found

    try:
        team.run(compare, _groups(files.values(), lambda file: file.size_bytes))
    except OSError as error:
        raise RestoreError(f"'{error.filename}' cannot be compared: {error.strerror}") from error
    return right


def _groups(files: Iterable[_Item], size: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Yield the files in groups, so that small ones do not wait for each other."""
    group: list[_Item] = []
    group_bytes = 0
    for file in files:
        group.append(file)
        group_bytes += size(file)
        if group_bytes >= _GROUP_BYTES or len(group) >= _GROUP_FILES:
            yield group
            group, group_bytes = [], 0
    if group:
        yield group


def _size(path: str) -> int | None:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _wrong_parts(file: IndexedFile, path: str, go_on: Callable[[], None]) -> tuple[list[FilePart], str]:
    """Return the parts of a file that are not right, and the CRC-32C of the whole file where all are."""
    found_bytes = _size(path)
    if found_bytes is None or (len(file.parts) == 1 and found_bytes != file.size_bytes):
        if found_bytes is not None and found_bytes > file.size_bytes:
            os.truncate(path, file.size_bytes)
        return list(file.parts), ""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        _log.warning("'%s' cannot be read, and is written anew: %s", path, error.strerror)
        Path(path).unlink()
        return list(file.parts), ""
    try:
        if found_bytes > file.size_bytes:
            os.ftruncate(descriptor, file.size_bytes)
        wrong: list[FilePart] = []
        for part in file.parts:
            if part.offset_bytes + part.size_bytes > found_bytes:
                wrong.append(part)
                continue
            try:
                crc = _read_part(descriptor, part, go_on)
            except OSError as error:
                _log.warning("a part of '%s' cannot be read, and is written anew: %s", path, error.strerror)
                wrong.append(part)
                continue
            if crc32c_hex(crc) != part.crc32c:
                wrong.append(part)
        if wrong:
            return wrong, ""
        whole = whole_crc32c(file)
        os.fchmod(descriptor, file_mode(file))
        return [], whole
    finally:
        os.close(descriptor)


def whole_crc32c(file: IndexedFile) -> str:
    """Return the CRC-32C of a file, from those of its parts. Raises: RestoreError where the index has another one."""
    joined = 0
    for part in file.parts:
        joined = join_crc32c(joined, int(part.crc32c, 16), part.size_bytes)
    if crc32c_hex(joined) != file.crc32c:
        raise RestoreError(f"the file index contradicts itself: '{file.path}' and its parts have other checksums")
    return file.crc32c


def _read_part(descriptor: int, part: FilePart, go_on: Callable[[], None]) -> int:
    """Return the CRC-32C of a part."""
    crc, offset, left = 0, part.offset_bytes, part.size_bytes
    while left and (data := os.pread(descriptor, min(READ_BYTES, left), offset)):
        go_on()
        crc = extend_crc32c(crc, data)
        offset += len(data)
        left -= len(data)
    return crc
