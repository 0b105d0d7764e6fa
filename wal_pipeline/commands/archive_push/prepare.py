"""Read a file of the spool, check that it is what its name says, and describe and encode it."""

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.archive.records import CommitTimes, WalFile
from wal_pipeline.codec.encoder import Encoded, Encoder
from wal_pipeline.errors import InvalidWalFileError, MemoryShortError
from wal_pipeline.host.limits import Memory, look_at_memory
from wal_pipeline.postgres.waldump import CommitReader, CommitSpan
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.wal.backup_history import BackupHistory
from wal_pipeline.wal.joint import read_joints
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, segment_name
from wal_pipeline.wal.page_header import (
    LONG_HEADER_BYTES,
    InvalidSegmentError,
    LongPageHeader,
    SegmentFault,
    check_segment,
)
from wal_pipeline.wal.text_owner import owner_of_text
from wal_pipeline.wal.timeline import TimelineHistory

_PAGE_BYTES: Final = 8192
LARGE_BYTES: Final = 64 * 2**20  # smaller segments fit wherever this program does
PROCESS_BYTES: Final = 128 * 2**20  # what an archiving run takes besides


class UnwrittenEndError(InvalidWalFileError):
    """A segment that ends in zeros, though its writer may not be done with it.

    A copy may set its space aside first. Without pg_waldump what is missing cannot be told from the end of a segment
    that PostgreSQL switched away from, so the file is left until it has settled.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"'{name}' ends in zeros, and whether it is still being written is not known")


class UnreadableWalError(InvalidWalFileError):
    """A whole segment in which pg_waldump finds no valid record from some position on.

    A copy may still be written into space that was set aside for it, so the file is left until it has settled. Then
    it is archived as it is: it may be the only copy, and PostgreSQL itself would replay it up to that position.
    """

    def __init__(self, name: str, stopped_at: Lsn) -> None:
        super().__init__(f"'{name}' has no valid record after {stopped_at}")


class UnknownClusterError(InvalidWalFileError):
    """A file that does not name its cluster, while it is not known whose the file is."""

    def __init__(self, name: str) -> None:
        super().__init__(f"'{name}' does not name its cluster")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked file, and its bytes as they are to be stored (None where no store needs them).

    ``seconds`` are the wall times of the steps ``checksum`` (with the reading and the checks) and ``compress``.
    """

    spooled: SpoolFile
    file: WalFile
    encoded: Encoded | None
    seconds: dict[str, float]


class Preparer:
    """Prepares files of one spool; one serves many threads."""

    def __init__(
        self,
        spool: Spool,
        encoder: Encoder,
        commits: CommitReader,
        memory: Callable[[], Memory | None] = look_at_memory,
        *,
        unreadable: bool = False,
        newer_major: Callable[[], int | None] = lambda: None,
    ) -> None:
        """``unreadable``: a segment whose first page is not PostgreSQL's is archived as it is.

        ``newer_major`` gives the server's version where it is newer than this program knows; it is asked where a
        page's magic is not known, and its pg_waldump tells whether it is the right one.
        """
        self._spool = spool
        self._encoder = encoder
        self._commits = commits
        self._memory = memory
        self._unreadable = unreadable
        self._newer_major = newer_major

    def prepare(
        self,
        spooled: SpoolFile,
        accepted: Collection[int],
        current: int | None,
        needs_bytes: Callable[[WalFile], bool],
    ) -> Prepared | None:
        """Return the file prepared, or None where it changed while it was read: list the spool again.

        ``accepted`` are the system identifiers whose segments are wanted, ``current`` the one of files that do
        not name theirs, None where it is not known. ``needs_bytes`` is asked once the file is described, before it is
        compressed.

        Raises: InvalidWalFileError, SpoolError (MemoryShortError before a byte is read).
        """
        begun = time.monotonic()
        self._require_memory(spooled)
        data = self._spool.read(spooled)
        if data is None:
            return None
        file = self._describe(spooled, data, accepted, current)
        seconds = {"checksum": time.monotonic() - begun}
        if not needs_bytes(file):
            return Prepared(spooled, file, None, seconds)
        begun = time.monotonic()
        compressed = self._encoder.encode(data)
        seconds["compress"] = time.monotonic() - begun
        return Prepared(spooled, file, compressed.timed(seconds["compress"]), seconds)

    def _describe(self, spooled: SpoolFile, data: bytes, accepted: Collection[int], current: int | None) -> WalFile:
        sha256 = hashlib.sha256(data).hexdigest()
        name = spooled.name
        if name.kind not in (FileKind.SEGMENT, FileKind.PARTIAL):
            content, at = _read_text(spooled, data), spooled.spooled_at
            if current is None:
                raise UnknownClusterError(name.name)
            owner = owner_of_text(name.name, content, at, accepted, current, now=datetime.now(UTC))
            return WalFile(name.name, name.kind, owner, name.timeline, len(data), sha256, spooled_at=at)
        try:
            header = check_segment(name, data[:LONG_HEADER_BYTES], len(data), accepted)
        except InvalidSegmentError as error:
            if error.fault is SegmentFault.NOT_A_WAL_PAGE and self._is_taken_unread(spooled, data):
                if current is None:
                    raise UnknownClusterError(name.name) from None
                return _unread(spooled, sha256, current)
            raise
        major = header.server_major or self._newer_major()
        span = self._span(spooled, header, major)
        if span is not None and span.stopped_at is not None and not spooled.settled:
            raise UnreadableWalError(name.name, span.stopped_at)
        if span is None and not spooled.settled and self._may_be_unwritten(spooled, data):
            raise UnwrittenEndError(name.name)
        known = span is not None and not (span.unseen_start and span.last is None)
        return WalFile(
            name=name.name,
            kind=name.kind,
            system_identifier=header.system_identifier,
            timeline=name.timeline,
            size_bytes=len(data),
            sha256=sha256,
            spooled_at=spooled.spooled_at,
            wal_segment_size=header.wal_segment_size,
            server_major=major if span is not None else header.server_major,
            start_lsn=name.start_lsn(header.wal_segment_size),
            end_lsn=name.end_lsn(header.wal_segment_size),
            commit_times=CommitTimes.KNOWN if known else CommitTimes.UNKNOWN,
            first_commit_at=span.first.at if span and span.first else None,
            last_commit_at=span.last.at if span and span.last else None,
            joints=read_joints(data, header, name.timeline),
        )

    def _require_memory(self, spooled: SpoolFile) -> None:
        """Refuse a large segment that would get this process killed, in each run anew and without a word."""
        memory = self._memory() if spooled.size_bytes >= LARGE_BYTES else None
        if memory is not None:
            require_memory(self._encoder, spooled.size_bytes, memory, f"'{spooled.name.name}'")

    def _may_be_unwritten(self, spooled: SpoolFile, data: bytes) -> bool:
        return not any(data[-_PAGE_BYTES:]) and not self._spool.has_no_writer(spooled)

    def _is_taken_unread(self, spooled: SpoolFile, data: bytes) -> bool:
        """Whether an encrypted segment is whole: only its size and its writer can tell. Zeros are space set aside."""
        if not self._unreadable or not spooled.whole_size or not any(data[:LONG_HEADER_BYTES]):
            return False
        return spooled.settled or self._spool.has_no_writer(spooled)

    def _span(self, spooled: SpoolFile, header: LongPageHeader, major: int | None) -> CommitSpan | None:
        if spooled.name.kind is FileKind.PARTIAL or major is None:
            return None
        size = header.wal_segment_size
        previous = None
        if header.begins_inside_record and spooled.name.number(size) > 0:
            before = segment_name(spooled.name.timeline, spooled.name.number(size) - 1, size)
            previous = self._spool.folder / before.name
        path = self._spool.path(spooled)
        at_hand = previous if previous is not None and previous.is_file() else None
        return self._commits.inspect(path, major, size, previous=at_hand)


def _unread(spooled: SpoolFile, sha256: str, current: int) -> WalFile:
    """Describe a segment by its name and size alone. Raises: InvalidWalNameError where no such segment has the name."""
    name, size = spooled.name, spooled.size_bytes
    return WalFile(
        name=name.name,
        kind=name.kind,
        system_identifier=current,
        timeline=name.timeline,
        size_bytes=size,
        sha256=sha256,
        spooled_at=spooled.spooled_at,
        wal_segment_size=size,
        server_major=None,
        start_lsn=name.start_lsn(size),
        end_lsn=name.end_lsn(size),
        commit_times=CommitTimes.UNKNOWN,
    )


def require_memory(encoder: Encoder, size_bytes: int, memory: Memory, what: str) -> str:
    """Return how much memory a segment needs beside what there is. Raises: MemoryShortError where that is less."""
    needed = encoder.needed_bytes(size_bytes) + PROCESS_BYTES
    text = f"{what} of {_mib(size_bytes)} needs about {_mib(needed)} of memory to be archived with {encoder.codec}"
    if needed > memory.available_bytes:
        may_pass = needed <= memory.limit_bytes
        found = memory.available_bytes if may_pass else memory.limit_bytes
        raise MemoryShortError(
            f"{text}, found {_mib(found)}{' free' if may_pass else ''}",
            hint="Give this host or its container more memory. WAL_PIPELINE_CODEC=zstd needs twice the segment, none "
            "needs it once, encryption two more of it; a restore needs three times the segment.",
            may_pass=may_pass,
        )
    return f"{text}, {_mib(memory.available_bytes)} are free"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


def _read_text(spooled: SpoolFile, data: bytes) -> TimelineHistory | BackupHistory:
    """Refuse a history file that is cut short or is another file's. Raises: InvalidWalFileError."""
    if spooled.name.kind is FileKind.HISTORY:
        return TimelineHistory.parse(spooled.name.timeline, data)
    return BackupHistory.parse(spooled.name, data)
