"""Reads flushed bytes of a segment in ``pg_wal`` while the server writes to it, and proves that they are those."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError, SegmentGoneError, cause_hint
from wal_pipeline.host.file_owner import name_of_user
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, InvalidSegmentError, LongPageHeader, check_segment
from wal_pipeline.wal.pages import SHORT_HEADER_BYTES

# xlog_internal.h: XLogPageHeaderData, up to xlp_pageaddr.
_PAGE: Final = struct.Struct("<HHIQ")
_ZEROS_BYTES: Final = 1 << 20
_WRONG_HINT: Final = (
    "The folder is not this server's pg_wal, or its disk lost what the server had flushed. Set PGDATA to the data "
    "directory of the very server that WAL_PIPELINE_CONNINFO names. Whole segments are archived all the same."
)


@dataclass(frozen=True, slots=True)
class SegmentBytes:
    """The bytes to read: those of ``segment`` from ``from_offset`` up to, not including, ``to_offset``.

    ``is_finished``: the server has flushed the segment up to its end, perhaps by a switch.
    """

    segment: WalFileName
    from_offset: int
    to_offset: int
    is_finished: bool


class PaddingError(PostgresError):
    """A page of zeros lies before what is flushed, in a segment that is not finished: a switch may be under way."""


def read_segment_bytes(path: Path, wanted: SegmentBytes, *, system_identifier: int, wal_segment_size: int) -> bytes:
    """Read bytes that the server has flushed from the file at ``path``, which has the segment's name or a partial's.

    PostgreSQL renames a segment that it needs no more to a later segment's name, with its old content, at any moment.
    So each page that is touched must carry its own address, and at the end the name must still stand for the file that
    was read.

    A switch leaves zeros, without page headers, from its record to the segment's end (xlog.c: CopyXLogRecordToWAL).

    Raises: SegmentGoneError where the name is gone; PaddingError; PostgresError where the file cannot be read, naming
    our user, or is not that segment.
    """
    if not 0 <= wanted.from_offset < wanted.to_offset <= wal_segment_size:
        raise ValueError(f"offsets {wanted.from_offset} to {wanted.to_offset} of {wal_segment_size} bytes")
    with _opened(path) as file:
        header = file.header(wanted.segment, system_identifier)
        first_page = wanted.from_offset // header.block_size * header.block_size
        data = file.read(first_page, wanted.to_offset - first_page)
        _check_pages(file, data, first_page, header, wanted)
        file.require_same()
    return data[wanted.from_offset - first_page :]


@dataclass(frozen=True, slots=True)
class _OpenFile:
    """A segment's file, opened for reading."""

    path: Path
    descriptor: int

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Read all of these bytes. Raises: PostgresError."""
        parts: list[bytes] = []
        while size_bytes > 0:
            try:
                part = os.pread(self.descriptor, size_bytes, offset)
            except OSError as error:
                raise cannot_read(self.path, error) from error
            if not part:
                message = f"'{self.path}' ends at {offset} bytes, expected {size_bytes} more"
                raise PostgresError(message, hint=_WRONG_HINT)
            parts.append(part)
            offset += len(part)
            size_bytes -= len(part)
        return b"".join(parts)

    def header(self, segment: WalFileName, system_identifier: int) -> LongPageHeader:
        """Read the first page's header, and refuse a file that is not this segment. Raises: PostgresError."""
        size_bytes = os.fstat(self.descriptor).st_size
        try:
            return check_segment(segment, self.read(0, LONG_HEADER_BYTES), size_bytes, [system_identifier])
        except InvalidSegmentError as error:
            raise PostgresError(f"'{self.path}' cannot be shipped: {error.message}", hint=_WRONG_HINT) from error

    def is_zero_from(self, offset: int, end: int) -> bool:
        """Whether there is nothing but zeros between two offsets. Raises: PostgresError."""
        for at in range(offset, end, _ZEROS_BYTES):
            size_bytes = min(_ZEROS_BYTES, end - at)
            if self.read(at, size_bytes).count(0) != size_bytes:
                return False
        return True

    def require_same(self) -> None:
        """Raises: SegmentGoneError where the name stands for another file now, or for none."""
        try:
            ours, named = os.fstat(self.descriptor), self.path.lstat()
        except FileNotFoundError as error:
            raise _gone(self.path) from error
        except OSError as error:
            raise cannot_read(self.path, error) from error
        if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino):
            raise _gone(self.path)


@contextmanager
def _opened(path: Path) -> Iterator[_OpenFile]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise _gone(path) from error
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        yield _OpenFile(path, descriptor)
    finally:
        os.close(descriptor)


def cannot_read(path: Path, error: OSError) -> PostgresError:
    """Return the error that names the user who may not read ``path``, its owner and the way out."""
    ours = name_of_user(os.geteuid())
    if not isinstance(error, PermissionError):
        return PostgresError(f"'{path}' cannot be read by user '{ours}': {error.strerror}", hint=cause_hint(error))
    closed, owner = _closed(path)
    return PostgresError(
        f"'{path}' cannot be read by user '{ours}': '{closed}' belongs to user '{owner}', and is closed to others",
        hint=f"Run 'wal-pipeline ship' as user '{owner}' (User={owner} in its systemd unit), or let the group read the "
        "data directory (initdb --allow-group-access) and add the user to it, or set WAL_PIPELINE_SHIP_FROM to "
        "pg_receivewal.",
    )


def _closed(path: Path) -> tuple[Path, str]:
    """Return the file, or the first folder above it, that keeps us out, and its owner."""
    for place in (*reversed(path.parents), path):
        try:
            owner = place.stat().st_uid
            mode = os.R_OK if place == path else os.X_OK
            if not os.access(place, mode, effective_ids=True):
                return place, name_of_user(owner)
        except OSError:
            break
    return path, "somebody else"


def _check_pages(file: _OpenFile, data: bytes, first_page: int, header: LongPageHeader, wanted: SegmentBytes) -> None:
    """Refuse a page that is not of this place and timeline, such as what a recycled file held before."""
    for at in range(0, len(data) - SHORT_HEADER_BYTES + 1, header.block_size):
        magic, _, timeline, address = _PAGE.unpack_from(data, at)
        place = first_page + at
        expected = Lsn(header.page_address + place)
        if (magic, address) == (header.magic, expected) and 1 <= timeline <= wanted.segment.timeline:
            continue
        if (magic, timeline, address) == (0, 0, 0) and file.is_zero_from(place, header.wal_segment_size):
            if wanted.is_finished:
                return
            raise PaddingError(f"'{file.path}' has zeros from {place} on, before what is flushed", hint=_WRONG_HINT)
        raise PostgresError(
            f"'{file.path}' has at {place} a page with magic {magic:04X}, timeline {timeline} and address "
            f"{Lsn(address)}, expected {header.magic:04X}, {wanted.segment.timeline} or lower and {expected}",
            hint=_WRONG_HINT,
        )


def _gone(path: Path) -> SegmentGoneError:
    return SegmentGoneError(
        f"'{path}' is gone: the server has removed or recycled it",
        hint="It does so with segments that are archived: this one comes through the spool. A promoted standby does it "
        "also with those that it received, which its primary archives.",
    )
