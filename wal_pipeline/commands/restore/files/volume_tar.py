"""Takes the opened bytes of one volume, and writes those files and parts of files that are wanted into their places."""

import os
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.parts import part_name
from wal_pipeline.commands.restore.files.checksums import crc32c_hex, extend_crc32c
from wal_pipeline.commands.restore.places.disk_flush import EarlyWriting
from wal_pipeline.errors import RestoreError

_BLOCK: Final = tarfile.BLOCKSIZE
_PAGE_BYTES: Final = 8192
_FILE_TYPES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)
_MODE_LIMIT: Final = 0o640  # a data directory has no programs, and PostgreSQL starts only where others may not write


@dataclass(frozen=True, slots=True)
class WantedPart:
    """A part of a file, or all of it, that is to be written from one volume."""

    file: IndexedFile
    part: FilePart

    @property
    def member(self) -> str:
        """The name that it has in the volume's tar."""
        whole = len(self.file.parts) == 1
        return self.file.path if whole else part_name(self.file.path, self.part.offset_bytes)


class VolumeTar:
    """The tar of one volume on its way to the disk: bytes are fed in, whatever their lengths.

    Members that are not ``wanted`` are passed over: a volume of an earlier base backup may hold files that have changed
    since. ``path`` says where a file lies. ``volume`` is its name for errors. ``reads_back``: what was written of each
    file is read again, while it is still in memory. ``overwrites``: the files are there, and most of their pages are
    right: only the others are written.
    """

    def __init__(
        self,
        volume: str,
        wanted: Mapping[str, WantedPart],
        path: Callable[[str], str],
        *,
        reads_back: bool = True,
        overwrites: bool = False,
    ) -> None:
        self._reads_back = reads_back
        self._overwrites = overwrites
        self._volume = volume
        self._left = dict(wanted)
        self._path = path
        self._header = b""
        self._content_bytes = 0
        self._skip_bytes = 0
        self._file: _OpenPart | None = None
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises: RestoreError where the tar is damaged, or a part is not what the index says; OSError.
        """
        start, end = 0, len(data)
        while start < end and not self._ended:
            if self._content_bytes:
                piece = data if start == 0 and end <= self._content_bytes else data[start : start + self._content_bytes]
                start += len(piece)
                self._content_bytes -= len(piece)
                self._take(piece)
            elif self._skip_bytes:
                skipped = min(self._skip_bytes, end - start)
                start += skipped
                self._skip_bytes -= skipped
            else:
                piece = data[start : start + _BLOCK - len(self._header)]
                start += len(piece)
                self._header += piece
                if len(self._header) == _BLOCK:
                    self._begin(self._header)
                    self._header = b""

    def finish(self) -> None:
        """Say that all bytes came. Raises: RestoreError where the tar was cut short, or a wanted part did not come."""
        if not self._ended:
            raise self._damage("it was cut short")
        if self._left:
            raise self._damage(f"it does not hold '{next(iter(self._left))}', which the file index promises")

    def close(self) -> None:
        """Close what is open, after an error."""
        if self._file is not None:
            self._file.close()

    def _begin(self, block: bytes) -> None:
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            self._ended = True
            return
        except tarfile.TarError as error:
            raise self._damage(str(error)) from error
        if member.size < 0:
            raise self._damage(f"'{member.name}' has {member.size} bytes")
        wanted = self._left.pop(member.name, None)
        self._skip_bytes = -member.size % _BLOCK
        if wanted is None:
            self._skip_bytes += member.size
            return
        if member.type not in _FILE_TYPES or member.size != wanted.part.size_bytes:
            raise self._damage(
                f"'{member.name}' has the type {member.type!r} and {member.size} bytes, expected a file of "
                f"{wanted.part.size_bytes} bytes"
            )
        self._file = _OpenPart(
            wanted, self._path(wanted.file.path), reads_back=self._reads_back, overwrites=self._overwrites
        )
        self._content_bytes = member.size
        if not member.size:
            self._end_file()

    def _take(self, piece: bytes) -> None:
        if self._file is not None:
            self._file.write(piece)
            if not self._content_bytes:
                self._end_file()

    def _end_file(self) -> None:
        if self._file is None:
            return
        self._file.close()
        found, expected = crc32c_hex(self._file.crc), self._file.wanted.part.crc32c
        if found != expected:
            raise self._damage(f"'{self._file.wanted.member}' has the CRC-32C {found}, expected {expected}")
        if self._reads_back and self._file.crc_read_back != self._file.crc:
            raise RestoreError(
                f"'{self._file.wanted.member}' was written and reads back with the CRC-32C "
                f"{crc32c_hex(self._file.crc_read_back)}, expected {expected}",
                hint="Look at the disk and the memory of this machine.",
            )
        self._file = None

    def _damage(self, reason: str) -> RestoreError:
        return RestoreError(
            f"volume '{self._volume}' is not what its base backup says: {reason}",
            hint="Its bytes are those that were stored. Restore from an earlier base backup, with --base-backup.",
        )


class _OpenPart:
    """A part of a file while it is written."""

    def __init__(self, wanted: WantedPart, path: str, *, reads_back: bool, overwrites: bool) -> None:
        self.wanted = wanted
        self.crc = 0
        self.crc_read_back = 0
        self._reads_back = reads_back
        self._overwrites = overwrites
        self._offset = wanted.part.offset_bytes
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(self._descriptor, file_mode(wanted.file))
        self._early = EarlyWriting(self._descriptor, self._offset)

    def write(self, data: bytes) -> None:
        self.crc = extend_crc32c(self.crc, data)
        try:
            self._put(data)
        except OSError as error:
            error.filename = self._path  # a full disk is said of the file
            raise
        self._offset += len(data)

    def _put(self, data: bytes) -> None:
        old = os.pread(self._descriptor, len(data), self._offset) if self._overwrites else b""
        begun = time.thread_time()
        for start, end in differing(old, data):
            self._write_all(data[start:end], self._offset + start)
        cpu_seconds = time.thread_time() - begun
        if self._reads_back and old == data:
            self.crc_read_back = extend_crc32c(self.crc_read_back, old)
        elif self._reads_back:
            self._read_back(len(data))
        self._early.wrote(len(data), cpu_seconds)

    def _write_all(self, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            offset, data = offset + written, data[written:]

    def _read_back(self, size_bytes: int) -> None:
        offset = self._offset
        while size_bytes and (data := os.pread(self._descriptor, size_bytes, offset)):
            self.crc_read_back = extend_crc32c(self.crc_read_back, data)
            offset += len(data)
            size_bytes -= len(data)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._early.end()
            os.close(self._descriptor)
            self._descriptor = -1


def file_mode(file: IndexedFile) -> int:
    """Return the permissions that a restored file gets: those it had, as far as PostgreSQL starts with them."""
    return (file.mode & _MODE_LIMIT) | 0o600


def differing(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each run of pages begins and ends whose bytes are not the same. ``old`` may be shorter."""
    if old == new:
        return
    if not old:
        yield 0, len(new)
        return
    begin: int | None = None
    for start in range(0, len(new), _PAGE_BYTES):
        end = start + _PAGE_BYTES
        if old[start:end] == new[start:end]:
            if begin is not None:
                yield begin, start
            begin = None
        elif begin is None:
            begin = start
    if begin is not None:
        yield begin, len(new)
