"""Fetches and decodes segments at the same time, ahead of the one that is looked at, and gives them in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from wal_pipeline.commands.archive_get.tail_wal import PiecesGoneError, fetch_tail
from wal_pipeline.commands.archive_get.wal_source import FetchedWal, WalSource, fetch_patiently
from wal_pipeline.commands.find.window import WalPart
from wal_pipeline.errors import CodecError, InvalidWalFileError, RestoreError
from wal_pipeline.host.limits import look_at_memory, usable_cores
from wal_pipeline.text import size
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header
from wal_pipeline.wal.records.changes import RecordChanges, count_changes
from wal_pipeline.wal.records.decode import UnfinishedRecord, decode_segment
from wal_pipeline.wal.records.page_stream import UndecodableWalError

_AT_ONCE: Final = 4  # two cores decode while two others wait for a store
_LARGE_SEGMENT: Final = 128 << 20
_MEMORY_TIMES: Final = 6  # a segment's bytes, stored and opened, its records, and their fields
_RETRY_SECONDS: Final = 30.0
_MOST_LOOKS: Final = 4


class UnreadWalError(RestoreError):
    """A segment of the window cannot be read now, though it is archived."""


@dataclass(frozen=True, slots=True)
class DecodedPart:
    """Holds the changes of one part. ``first_previous`` is the LSN that its first record gives for the one before it.

    ``fault``: it could not be read, and why; it then holds nothing. ``pieces``: it was made from pieces.
    """

    part: WalPart
    server_major: int
    size_bytes: int
    changes: RecordChanges | None = None
    first_previous: int | None = None
    last_lsn: int | None = None
    head: bytes = b""
    gives_up: bool = False
    unfinished: UnfinishedRecord | None = None
    ends: Lsn | None = None
    is_whole: bool = True
    fault: str | None = None
    pieces: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PartReader:
    """Reads parts from the archive's stores."""

    source: WalSource
    wal_segment_size: int

    def read_all(self, parts: Iterable[WalPart]) -> Iterator[DecodedPart]:
        """Yield each part, decoded, in order; a few more are fetched and decoded meanwhile.

        Raises: UndecodableWalError; UnreadWalError where a store does not answer.
        """
        self._require_memory()
        at_once = 1 if self.wal_segment_size >= _LARGE_SEGMENT else max(_AT_ONCE, usable_cores() + 2)
        waiting: deque[Future[DecodedPart]] = deque()
        with ThreadPoolExecutor(at_once, thread_name_prefix="find-wal") as pool:
            try:
                for part in parts:
                    waiting.append(pool.submit(self.read, part))
                    if len(waiting) > at_once:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for one in waiting:
                    one.cancel()

    def _require_memory(self) -> None:
        """Refuse large segments that would get this process killed. Raises: UnreadWalError."""
        memory = look_at_memory() if self.wal_segment_size >= _LARGE_SEGMENT else None
        needed = _MEMORY_TIMES * self.wal_segment_size
        if memory is not None and needed > memory.available_bytes:
            raise UnreadWalError(
                f"segments of {size(self.wal_segment_size)} need {size(needed)} of memory to be searched, "
                f"{size(memory.available_bytes)} are free",
                hint="Search on a host with more memory: only the stores' credentials are needed.",
            )

    def read(self, part: WalPart) -> DecodedPart:
        """Fetch and decode one part. Raises: as ``read_all``."""
        try:
            fetched, pieces, end_offset = self._fetch(part)
        except RestoreError as error:
            if getattr(error, "may_pass", False):
                raise UnreadWalError(error.message, hint="Search again when the store answers.") from error
            return DecodedPart(part, 0, 0, fault=error.message)
        except CodecError as error:
            raise UnreadWalError(error.message, hint=error.hint) from error
        if fetched is None:
            return DecodedPart(part, 0, 0, fault=f"'{part.name.name}' is on no store any more")
        try:
            return replace(decode_part(part, fetched.data, end_offset), pieces=pieces, notes=fetched.notes)
        except UndecodableWalError:
            raise
        except InvalidWalFileError as error:
            return DecodedPart(part, 0, 0, fault=error.message)

    def _fetch(self, part: WalPart) -> tuple[FetchedWal | None, int, int | None]:
        """Return a segment, of how many pieces it was made, and up to where it is known; None: all of it."""
        whole = partial(self.source.fetch, part.name)
        if not part.is_tail:
            return fetch_patiently(whole, _RETRY_SECONDS, say=_quiet), 0, None
        for _ in range(_MOST_LOOKS):
            try:
                tail = fetch_tail(self.source, part.name, enough=part.end_offset)
            except PiecesGoneError:
                tail = None
            if tail is not None:
                end = tail.joined.end_offset
                return tail.wal, len(tail.joined.pieces), end if end < self.wal_segment_size else None
            fetched = fetch_patiently(whole, _RETRY_SECONDS, say=_quiet)
            if fetched is not None:  # archived as a whole meanwhile
                return fetched, 0, None
        return None, 0, None


def decode_part(part: WalPart, data: bytes, end_offset: int | None = None) -> DecodedPart:
    """Decode a segment's bytes. Raises: InvalidWalFileError."""
    header = parse_long_page_header(part.name.name, data[:LONG_HEADER_BYTES])
    records = decode_segment(part.name, data, end_offset)
    table, major = records.table, header.server_major or 0
    return DecodedPart(
        part,
        server_major=major,
        size_bytes=len(data) if end_offset is None else end_offset,
        changes=count_changes(table, major),
        first_previous=int(table.previous[0]) if len(table) else None,
        last_lsn=int(table.lsns[-1]) if len(table) else None,
        head=records.head,
        gives_up=records.gives_up,
        unfinished=records.unfinished,
        ends=records.ends,
        is_whole=records.is_whole,
    )


def _quiet(_text: str) -> None:
    """Say nothing: a store that answers in the end is no news in a search."""
