"""Writes PostgreSQL's ``backup_manifest``, the list of a base backup's files that pg_verifybackup proves.

https://www.postgresql.org/docs/current/backup-manifest-format.html, written as backup_manifest.c writes it.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from wal_pipeline.wal.lsn import Lsn

FILE_LIST_NAME: Final = "backup_manifest"
_IDENTIFIER_SINCE: Final = 17  # version 2 of the format: it names the cluster
_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FileListEntry:
    """A file of the list. ``path`` is relative to the data directory, ``crc32c`` eight hex digits of the number.

    A path that is not UTF-8 has Python's surrogate escapes. ``modified_ns`` counts from 1970.
    """

    path: str
    size_bytes: int
    modified_ns: int
    crc32c: str


@dataclass(frozen=True, slots=True)
class NeededWal:
    """The WAL that recovery of the base backup needs at least, on one timeline."""

    timeline: int
    start_lsn: Lsn
    stop_lsn: Lsn


def file_list_lines(
    files: Iterable[FileListEntry], wal: NeededWal, *, major: int, system_identifier: int
) -> Iterator[bytes]:
    """Yield the list's bytes, a line or two at a time, for a server of the major version ``major``.

    Folders are not listed, and neither is the list itself.
    """
    digest = hashlib.sha256()
    for line in _lines(files, wal, major, system_identifier):
        digest.update(line)
        yield line
    yield f'"Manifest-Checksum": "{digest.hexdigest()}"}}\n'.encode()


def _lines(files: Iterable[FileListEntry], wal: NeededWal, major: int, system_identifier: int) -> Iterator[bytes]:
    if major >= _IDENTIFIER_SINCE:
        yield b'{ "PostgreSQL-Backup-Manifest-Version": 2,\n'
        yield f'"System-Identifier": {system_identifier},\n'.encode()
    else:
        yield b'{ "PostgreSQL-Backup-Manifest-Version": 1,\n'
    yield b'"Files": ['
    separator = b"\n"
    for file in files:
        yield separator + _entry(file)
        separator = b",\n"
    yield b'\n],\n"WAL-Ranges": [\n'
    yield (
        f'{{ "Timeline": {wal.timeline}, "Start-LSN": "{wal.start_lsn}", "End-LSN": "{wal.stop_lsn}" }}\n],\n'
    ).encode()


def _entry(file: FileListEntry) -> bytes:
    modified_at = time.strftime("%Y-%m-%d %H:%M:%S GMT", time.gmtime(file.modified_ns // _NANOSECONDS))
    # PostgreSQL prints the number as it lies in memory (checksum_helper.c), not as it is written.
    checksum = int(file.crc32c, 16).to_bytes(4, sys.byteorder).hex()
    rest = (
        f', "Size": {file.size_bytes}, "Last-Modified": "{modified_at}", '
        f'"Checksum-Algorithm": "CRC32C", "Checksum": "{checksum}" }}'
    )
    return b"{ " + _path(file.path) + rest.encode()


def _path(path: str) -> bytes:
    """Return the path as JSON in UTF-8; one that is not UTF-8 in hex."""
    try:
        return b'"Path": ' + json.dumps(path, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return f'"Encoded-Path": "{path.encode("utf-8", "surrogateescape").hex()}"'.encode()
