"""Finds the records of a segment and reads the fields that every record has, for all of them at once."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName
from wal_pipeline.wal.records.page_stream import (
    PADDING_BYTES,
    Bytes,
    DamagedRecordsError,
    Numbers,
    PageStream,
    open_pages,
)

RECORD_BYTES: Final = 24  # xlogrecord.h: SizeOfXLogRecord
_LONGEST: Final = 1020 << 20  # XLogRecordMaxSize
_ALIGNMENT: Final = 8
_LAST_BLOCK_ID: Final = 32  # XLR_MAX_BLOCK_ID
_HAS_IMAGE: Final = 0x10  # BKPBLOCK_HAS_IMAGE
_SAME_RELATION: Final = 0x80  # BKPBLOCK_SAME_REL
_IMAGE_BYTES: Final = 5  # SizeOfXLogRecordBlockImageHeader
_HAS_HOLE: Final = 0x01  # BKPIMAGE_HAS_HOLE
_COMPRESSED: Final = 0x04 | 0x08 | 0x10  # BKPIMAGE_COMPRESS_PGLZ, _LZ4, _ZSTD since PostgreSQL 15
_ORIGIN, _TOP_XID, _LONG_DATA, _SHORT_DATA = 253, 252, 254, 255  # XLR_BLOCK_ID_...

Words = NDArray[np.uint32]
Marks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class RecordTable:
    """The records of one stretch of WAL, a row each: their offsets in ``body``, LSNs and lengths in bytes.

    ``databases`` and ``file_nodes`` are of each record's first block, 0 where it has none. ``after_block`` is where its
    headers go on after that block's. ``previous`` is the LSN that it gives for the record before it.
    """

    body: Bytes
    offsets: Numbers
    lsns: Numbers
    lengths: Numbers
    xids: Numbers
    previous: Numbers
    managers: Bytes
    infos: Bytes
    databases: Words
    file_nodes: Words
    after_block: Numbers

    def __len__(self) -> int:
        return len(self.offsets)

    def record(self, row: int) -> bytes:
        """Return one record's bytes."""
        at = int(self.offsets[row])
        return self.body[at : at + int(self.lengths[row])].tobytes()

    def main_data(self, rows: Numbers) -> Numbers:
        """Return where the main data of records with a block begins in ``body``.

        It is a record's end, and its header the last one (XLogRecordAssemble). Raises: DamagedRecordsError.
        """
        at = self.after_block[rows].copy()
        ends = self.offsets[rows] + self.lengths[rows]
        for _ in range(_LAST_BLOCK_ID):
            further = np.flatnonzero((self.body[at] <= _LAST_BLOCK_ID) & (at < ends))
            if not len(further):
                break
            at[further] = _after_block(self.body, at[further])[0]
            at = np.minimum(at, ends)
        for mark, width in ((_ORIGIN, 3), (_TOP_XID, 5)):
            at += np.where(self.body[at] == mark, width, 0)
        kinds = self.body[at]
        sizes = np.where(kinds == _SHORT_DATA, self.body[at + 1], words_at(self.body, at + 1)).astype(np.int64)
        wrong = np.flatnonzero(((kinds != _SHORT_DATA) & (kinds != _LONG_DATA)) | (at >= ends) | (ends - sizes < at))
        if len(wrong):
            lsn = Lsn(int(self.lsns[rows[wrong[0]]]))
            raise DamagedRecordsError(f"the record at {lsn} has no main data after its blocks", lsn)
        return ends - sizes


@dataclass(frozen=True, slots=True)
class UnfinishedRecord:
    """The beginning of a record that goes on in the next segment: ``length`` bytes in all."""

    lsn: Lsn
    length: int
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class DecodedSegment:
    """The records of one segment.

    ``head`` is the rest of a record that began before it, ``unfinished`` goes on after it. ``gives_up``: that record
    never ends, as the server crashed while it was written. ``ends`` is where the records end; ``is_whole`` says that
    they end with the segment, or with a switch to the next one.
    """

    name: WalFileName
    table: RecordTable
    head: bytes
    gives_up: bool
    unfinished: UnfinishedRecord | None
    ends: Lsn
    is_whole: bool


def decode_segment(name: WalFileName, data: bytes, end_offset: int | None = None) -> DecodedSegment:
    """Decode a segment, or its beginning up to ``end_offset``.

    Raises: UndecodableWalError, InvalidSegmentError; DamagedRecordsError where the records are not those of its pages.
    """
    stream = open_pages(name, data, end_offset)
    rows, begun, end = _walk(stream)
    offsets = np.array(rows, np.int64) * _ALIGNMENT
    table = read_table(stream.body, offsets, stream.lsns(offsets))
    _check_order(stream, table)
    _check_rests(stream, table, begun)
    unfinished = None
    if begun is not None:
        length = int(words_at(stream.body, np.array([begun]))[0])
        unfinished = UnfinishedRecord(stream.lsn(begun), length, stream.body[begun : stream.size_bytes].tobytes())
    switched = len(table) > 0 and (int(table.managers[-1]), int(table.infos[-1]) & 0xF0) == (0, 0x40)
    return DecodedSegment(
        name=name,
        table=table,
        head=stream.body[: min(stream.head_bytes, stream.size_bytes)].tobytes(),
        gives_up=bool(stream.given_up) and stream.given_up[0] == 0,
        unfinished=unfinished,
        ends=Lsn(stream.lsn(end - 1) + 1) if end > 0 else stream.header.page_address,
        is_whole=switched or (end >= stream.size_bytes and not stream.is_cut),
    )


def join_record(unfinished: UnfinishedRecord, rest: bytes) -> RecordTable | UnfinishedRecord:
    """Join a record with its rest from the next segment; where that is not its end, return its beginning so far."""
    data = unfinished.data + rest
    if len(data) < unfinished.length:
        return UnfinishedRecord(unfinished.lsn, unfinished.length, data)
    size = -(-len(data) // _ALIGNMENT) * _ALIGNMENT
    body = np.zeros(size + PADDING_BYTES, np.uint8)
    body[: len(data)] = np.frombuffer(data, np.uint8)
    return read_table(body, np.zeros(1, np.int64), np.array([unfinished.lsn], np.int64))


def read_table(body: Bytes, offsets: Numbers, lsns: Numbers) -> RecordTable:
    """Read the fields of the records at ``offsets`` (xlogrecord.h: XLogRecord and the header of its first block)."""
    words = body.view(np.uint32)
    at = offsets >> 2
    kinds = words[at + 4]
    head = words[at + 6]
    has_block = (head & 0xFF) <= _LAST_BLOCK_ID
    lengths = words[at].astype(np.int64)
    has_block &= lengths > RECORD_BYTES
    databases = np.where(has_block, words[at + 8], np.uint32(0))
    nodes = np.where(has_block, words[at + 9], np.uint32(0))
    after = offsets + np.where(has_block, RECORD_BYTES + 20, RECORD_BYTES)
    with_image = np.flatnonzero(has_block & ((head >> 8) & _HAS_IMAGE != 0))
    if len(with_image):
        ends, locators = _after_block(body, offsets[with_image] + RECORD_BYTES)
        databases[with_image] = words_at(body, locators + 4)
        nodes[with_image] = words_at(body, locators + 8)
        after[with_image] = ends
    return RecordTable(
        body=body,
        offsets=offsets,
        lsns=lsns,
        lengths=lengths,
        xids=words[at + 1].astype(np.int64),
        previous=words[at + 2].astype(np.int64) | (words[at + 3].astype(np.int64) << 32),
        managers=(kinds >> 8).astype(np.uint8),
        infos=kinds.astype(np.uint8),
        databases=databases,
        file_nodes=nodes,
        after_block=after,
    )


def _after_block(body: Bytes, at: Numbers) -> tuple[Numbers, Numbers]:
    """Return where the headers of blocks end, and where each one's relation stands (XLogRecordBlockHeader)."""
    flags = body[at + 1]
    has_image = flags & _HAS_IMAGE != 0
    how = body[at + 4 + _IMAGE_BYTES - 1]
    has_length = has_image & (how & _HAS_HOLE != 0) & (how & _COMPRESSED != 0)
    locators = at + 4 + np.where(has_image, _IMAGE_BYTES, 0) + np.where(has_length, 2, 0)
    return locators + np.where(flags & _SAME_RELATION != 0, 0, 12) + 4, locators


def words_at(body: Bytes, at: Numbers) -> Words:
    """Return the 32-bit numbers at offsets of any alignment."""
    found = body[at].astype(np.uint32)
    for byte in (1, 2, 3):
        found |= body[at + byte].astype(np.uint32) << np.uint32(8 * byte)
    return found


def _walk(stream: PageStream) -> tuple[list[int], int | None, int]:
    """Return the records' offsets in units of 8 bytes, the offset of a record that does not end here, and the end."""
    words = memoryview(stream.body.data).cast("I")
    size = stream.size_bytes
    first = _aligned(stream.head_bytes)
    stops = [*(one for one in stream.given_up if one >= first and one > 0), size]
    rows: list[int] = []
    append = rows.append
    at = first // _ALIGNMENT
    begun = None
    for stop in stops:
        last = stop // _ALIGNMENT
        begun = None
        while at < last:
            length = words[at * 2]
            if length < RECORD_BYTES:
                return rows, None, at * _ALIGNMENT
            append(at)
            at += (length + 7) >> 3
        if rows and rows[-1] * _ALIGNMENT + words[rows[-1] * 2] > stop:
            begun = rows.pop() * _ALIGNMENT
            at = last
    return rows, begun, size if begun is not None else min(at * _ALIGNMENT, size)


def _check_order(stream: PageStream, table: RecordTable) -> None:
    """Check that each record gives the one before it, and that no length is impossible."""
    wrong = np.flatnonzero(table.previous[1:] != table.lsns[:-1]) + 1
    long = np.flatnonzero(table.lengths > _LONGEST)
    if len(wrong) or len(long):
        row = int(min([*wrong[:1], *long[:1]]))
        lsn, said, before = (int(one[row]) for one in (table.lsns, table.previous, np.roll(table.lsns, 1)))
        raise DamagedRecordsError(
            f"'{stream.name}': the record at {Lsn(lsn)} follows one at {Lsn(said)} by its own word, "
            f"expected {Lsn(before)}",
            Lsn(lsn),
        )


def _check_rests(stream: PageStream, table: RecordTable, begun: int | None) -> None:
    """Check that each page's header counts the rest of the record that lies across its beginning."""
    begins = table.offsets if begun is None else np.append(table.offsets, begun)
    lengths = table.lengths
    if begun is not None:
        lengths = np.append(lengths, np.int64(words_at(stream.body, np.array([begun]))[0]))
    first = int(begins[0]) if len(begins) else stream.size_bytes
    reached = int(begins[-1] + lengths[-1]) if len(begins) else 0
    pages = np.flatnonzero((stream.page_starts > first) & (stream.page_starts < min(reached, stream.size_bytes)))
    starts = stream.page_starts[pages]
    row = np.searchsorted(begins, starts, side="left") - 1
    expected = np.maximum(begins[row] + lengths[row] - starts, 0)
    wrong = pages[stream.rests[pages] != expected]
    if len(wrong):
        lsn = stream.lsn(int(stream.page_starts[wrong[0]]))
        raise DamagedRecordsError(
            f"'{stream.name}': the page at {lsn} goes on with {int(stream.rests[wrong[0]])} bytes of a record, "
            f"expected {int(expected[np.flatnonzero(pages == wrong[0])[0]])}",
            lsn,
        )


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
