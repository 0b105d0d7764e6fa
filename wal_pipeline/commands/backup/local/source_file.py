"""Reads one file of a running cluster once, from beginning to end, while the server may write, cut or remove it.

As PostgreSQL's basebackup.c does it: a file that is gone is left out; the size is that of the moment when the file was
opened; what grows behind it is not read; where the file ends earlier, zeros stand for the rest. WAL replay brings each
of them to the state that it needs.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import google_crc32c

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.data_files import DataFile
from wal_pipeline.postgres.relation_file import parse_relation_file
from wal_pipeline.postgres.started_backup import StartedBackup
from wal_pipeline.wal.lsn import Lsn

if TYPE_CHECKING:  # imported for the first relation: where processes read them, this one needs no numpy
    from wal_pipeline.postgres.page_checksums import PageCheck

READ_BYTES: Final = 2 << 20  # so many pages that a step of numpy pays, and so few that they stay near the processor
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)
OnRead = Callable[[int], object]


class SourceFile:
    """An open file; a context manager. ``size_bytes``, ``modified_ns`` and ``mode`` are those of its opening.

    ``check`` has looked at all pages that were read; it is None for a file that has none.
    """

    def __init__(self, file: DataFile, descriptor: int, started: StartedBackup, on_read: OnRead) -> None:
        status = os.fstat(descriptor)
        self.path = file.path
        self.size_bytes = status.st_size
        self.modified_ns = status.st_mtime_ns
        self.mode = stat.S_IMODE(status.st_mode)
        self.check = self._page_check(file, started)
        self._file, self._started = file, started
        self._descriptor = descriptor
        self._on_read = on_read
        self._offset = 0
        self._crc = 0
        self._part_crc = 0
        self._has_parts = False
        self._is_cut = False

    @property
    def crc32c(self) -> str:
        """The checksum of all that was read, as eight hex digits."""
        return f"{self._crc:08x}"

    @property
    def part_crc32c(self) -> str:
        """The checksum of what was read since ``begin_part``, as eight hex digits."""
        return f"{self._part_crc:08x}"

    def begin_part(self) -> None:
        """Begin another part, which gets a checksum of its own."""
        self._part_crc, self._has_parts = 0, True

    @property
    def rest_bytes(self) -> int:
        """How many bytes were not read yet."""
        return self.size_bytes - self._offset

    def chunks(self, size_bytes: int) -> Iterator[bytes]:
        """Yield the file's next ``size_bytes``, or its rest, in chunks of whole pages.

        Raises: BaseBackupError where the file cannot be read.
        """
        end = min(self.size_bytes, self._offset + size_bytes)
        while self._offset < end:
            chunk = self._read(min(READ_BYTES, end - self._offset))
            if self.check is not None:
                chunk = bytes(self.check.take(chunk, self._offset))
            self.accept(chunk)
            yield chunk

    def takes_stored(self, part: FilePart, newest: Lsn | None, confirm: Callable[[], bool]) -> bool:
        """Read the next bytes, which an earlier base backup has as ``part``, and say whether they are still the same.

        They are where the checksum and each page are right, and no page is newer than ``newest`` (None: whatever the
        pages say). Then ``confirm`` is asked too. Where the answer is no, the bytes count as not read.

        Raises: BaseBackupError where the file cannot be read.
        """
        start, crc, part_crc = self._offset, self._crc, 0
        check = self._page_check(self._file, self._started)
        end = start + part.size_bytes
        if check is None or end > self.size_bytes or self._is_cut:
            return False
        try:
            while self._offset < end:
                chunk = bytes(check.take(self._read(min(READ_BYTES, end - self._offset)), self._offset))
                if self._is_cut or (newest is not None and check.newest_lsn > newest):
                    return False
                part_crc = google_crc32c.extend(part_crc, chunk)
                self._crc = google_crc32c.extend(self._crc, chunk)
                self._offset += len(chunk)
                self._on_read(len(chunk))
            is_right = not check.unchecked_bytes and not check.damaged_blocks(Lsn(0))
            if is_right and f"{part_crc:08x}" == part.crc32c and confirm():
                start, crc = self._offset, self._crc
                return True
            return False
        finally:
            self._offset, self._crc, self._is_cut = start, crc, False

    def read_unchecked(self) -> bytes:
        """Return the whole of a small file, which ``accept`` must be given when its pages are checked.

        Raises: BaseBackupError where the file cannot be read.
        """
        return self._read(self.size_bytes) if self.size_bytes else b""

    def accept(self, chunk: bytes) -> None:
        """Count the next bytes of the file, as they are stored, into its checksum."""
        self._crc = google_crc32c.extend(self._crc, chunk)
        if self._has_parts:
            self._part_crc = google_crc32c.extend(self._part_crc, chunk)
        self._offset += len(chunk)
        self._on_read(len(chunk))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _read(self, size_bytes: int) -> bytes:
        """Read as many bytes, with zeros for those behind the end that the file has by now."""
        if self._is_cut:
            return bytes(size_bytes)
        data = self._pread(size_bytes, self._offset)
        while len(data) < size_bytes and not self._is_cut:
            more = self._pread(size_bytes - len(data), self._offset + len(data))
            self._is_cut = not more  # a file that is cut and grows again is zeros here, as in basebackup.c
            data += more or bytes(size_bytes - len(data))
        return data

    def _pread(self, size_bytes: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, size_bytes, offset)
        except OSError as error:
            raise _unreadable(str(self._file.source), error) from error

    def _page_check(self, file: DataFile, started: StartedBackup) -> "PageCheck | None":
        relation = parse_relation_file(file.path.rpartition("/")[2]) if file.relation else None
        if relation is None:
            return None
        from wal_pipeline.postgres.page_checksums import PageCheck  # noqa: PLC0415 - the first relation needs it

        return PageCheck(
            started.start_lsn,
            lambda offset: self._pread(self._started.block_size, offset),
            has_checksums=started.has_checksums,
            segment=relation.segment,
            block_size=started.block_size,
            blocks_per_segment=started.blocks_per_segment,
        )


def open_source(file: DataFile, started: StartedBackup, on_read: OnRead = lambda _: None) -> SourceFile | None:
    """Open a file of the walk; None where it is gone. ``on_read`` is called with the number of bytes of each read.

    Raises: BaseBackupError where it cannot be opened, or is no regular file any more.
    """
    try:
        descriptor = os.open(file.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise _unreadable(str(file.source), error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BaseBackupError(
            f"'{file.source}' is no regular file any more", hint="Take the base backup again, when nobody changes it."
        )
    return SourceFile(file, descriptor, started, on_read)


def read_together(sources: Sequence[SourceFile]) -> list[bytes]:
    """Read small files whole and check all their pages at once, which is much faster than one file after the other.

    Raises: BaseBackupError where one cannot be read.
    """
    read = [source.read_unchecked() for source in sources]
    checks = [(number, source.check) for number, source in enumerate(sources) if source.check is not None]
    if checks:
        from wal_pipeline.postgres.page_checksums import take_together  # noqa: PLC0415

        checked = take_together([(check, read[number], 0) for number, check in checks])
        for (number, _), chunk in zip(checks, checked, strict=True):
            read[number] = bytes(chunk)
    for source, chunk in zip(sources, read, strict=True):
        source.accept(chunk)
    return read


def unchanged_pages(
    file: DataFile, known: IndexedFile, started: StartedBackup, on_read: OnRead = lambda _: None
) -> "PageCheck | None":
    """Read a relation's file, and return the check of its pages where it still is what an earlier base backup stored.

    None where it is gone, where its size, its time or its checksum is another one, and where a page is damaged.

    Raises: BaseBackupError where it cannot be read.
    """
    source = open_source(file, started, on_read)
    if source is None:
        return None
    with source:
        if (source.size_bytes, source.modified_ns) != (known.size_bytes, known.modified_ns):
            return None
        for _ in source.chunks(source.size_bytes):
            pass
        is_same = source.check is not None and source.crc32c == known.crc32c
        return source.check if is_same and source.check and not source.check.damaged_blocks(Lsn(0)) else None


def _unreadable(path: str, error: OSError) -> BaseBackupError:
    hints = {
        errno.EACCES: "Run this program as PostgreSQL's user, who may read every file of the data directory.",
        errno.EIO: "The disk cannot give the bytes: see the kernel's log. Older base backups stay; restore what the "
        "file holds from one of them.",
    }
    return BaseBackupError(
        f"'{path}' cannot be read: {error.strerror}",
        hint=hints.get(error.errno or 0, "Mend what the error names, and take the base backup again."),
    )
