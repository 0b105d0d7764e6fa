"""Verifies the checksums of a relation's pages, many pages at once, and finds the newest LSN in them.

The algorithm is that of checksum_impl.h, the fields are those of PageHeaderData (bufpage.h). Each step works on all
pages of a chunk and does not hold the interpreter's lock.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wal_pipeline.wal.lsn import Lsn

Chunk = bytes | bytearray | memoryview
_COLUMNS: Final = 32  # N_SUMS
_PRIME: Final = np.array(16777619, np.uint32)  # FNV_PRIME
_SHIFT: Final = np.array(17, np.uint32)
_ZEROS: Final = np.zeros(_COLUMNS, np.uint32)
_OFFSETS: Final = np.array(
    [
        *(0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C),
        *(0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB),
        *(0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4),
        *(0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756),
    ],
    dtype=np.uint32,
)  # checksumBaseOffsets
_MODULUS: Final = np.uint32(65535)
_LSN_HIGH, _LSN_LOW, _CHECKSUM, _UPPER = 0, 1, 4, 7  # pd_lsn in words of 4 bytes, pd_checksum and pd_upper in halves
_CHECKSUM_WORD: Final = 2
# The checksum is computed as if pd_checksum, the first half of this word in memory, were zero.
_REST_OF_WORD: Final = np.uint32(0xFFFF0000 if sys.byteorder == "little" else 0x0000FFFF)
# So many that a step's own time counts little, and so few that what it works on stays in the processor's cache.
_PAGES_AT_ONCE: Final = 1024
_FEW_PAGES: Final = 3
_ROW_BYTES: Final = 8 * _COLUMNS
_WIDE_OFFSETS: Final = int.from_bytes(_OFFSETS.astype("<u8").tobytes(), "little")
_ALL_BITS: Final = int.from_bytes(np.full(_COLUMNS, 0xFFFFFFFF, "<u8").tobytes(), "little")
_UPPER_BITS: Final = int.from_bytes(np.full(_COLUMNS, 0xFFFFFFFF >> 17, "<u8").tobytes(), "little")
_TRIES: Final = 3
_Words = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class PageFindings:
    """The findings of a ``PageCheck``: ``damaged`` blocks, and the LSNs of wrong pages that were written meanwhile."""

    damaged: frozenset[int]
    newer: Mapping[int, Lsn]
    unchecked_bytes: int

    @property
    def is_noteworthy(self) -> bool:
        """Whether there is anything to say of the file."""
        return bool(self.damaged or self.newer or self.unchecked_bytes)

    def damaged_blocks(self, stop_lsn: Lsn) -> tuple[int, ...]:
        """Return the damaged blocks, in order, of a base backup that ended at ``stop_lsn``.

        Blocks count from the file's beginning. A page with a wrong checksum whose LSN lies after ``stop_lsn`` was not
        written by this server: its LSN is part of the damage.
        """
        return tuple(sorted(self.damaged | {block for block, lsn in self.newer.items() if lsn > stop_lsn}))


class PageCheck:
    """Checks one relation file while it is read; ``take`` gets its chunks in any order.

    A page is right where its checksum is, where it is new (all zeros), and where it was written after the base backup
    began: replay restores it whole. A page that looks wrong may only have been read while it was written, so
    ``read_again`` is asked for it: it gets the page's place in bytes and returns the page, or fewer bytes or none where
    the file is shorter now.

    ``newest_lsn`` is the newest of the pages that were taken. ``unchecked_bytes`` are those of chunks' ends that are no
    whole page.
    """

    def __init__(
        self,
        start_lsn: Lsn,
        read_again: Callable[[int], bytes],
        *,
        has_checksums: bool = True,
        segment: int = 0,
        block_size: int = 8192,
        blocks_per_segment: int = 131072,
    ) -> None:
        """Describe the file: the number of its ``segment``, and what ``StartedBackup`` has.

        Without checksums (``has_checksums``) only the LSNs are looked at.
        """
        self.newest_lsn = Lsn(0)
        self.unchecked_bytes = 0
        self.has_checksums = has_checksums
        self.block_size = block_size
        self._start_lsn = start_lsn
        self._read_again = read_again
        self._first_block = segment * blocks_per_segment
        self._damaged: set[int] = set()
        self._newer: dict[int, Lsn] = {}

    def take(self, chunk: Chunk, offset_bytes: int) -> Chunk:
        """Check the pages of a chunk that lies at ``offset_bytes`` in the file, and return what belongs into the copy.

        That is the chunk itself, or a copy with those pages that were right, or at least other, when they were read
        again (as basebackup.c does it).
        """
        return take_together([(self, chunk, offset_bytes)])[0]

    @property
    def findings(self) -> PageFindings:
        """The findings in the pages that were taken until now."""
        return PageFindings(frozenset(self._damaged), dict(self._newer), self.unchecked_bytes)

    def damaged_blocks(self, stop_lsn: Lsn) -> tuple[int, ...]:
        """Return the damaged blocks, as ``PageFindings`` does."""
        return self.findings.damaged_blocks(stop_lsn)

    def block_numbers(self, first: int, count: int) -> NDArray[np.uint32]:
        """Return the numbers that blocks of this file have in the relation."""
        start = self._first_block + first
        return np.arange(start, start + count, dtype=np.uint32)

    def judge(self, block: int, lsn: Lsn) -> bytes | None:
        """Judge a page whose checksum is wrong and whose LSN is this one; return what was read instead of it."""
        found: bytes | None = None
        for _ in range(_TRIES):
            if lsn >= self._start_lsn:
                self._newer[block] = lsn
                return found
            page = self._read_again(block * self.block_size)
            if len(page) < self.block_size:
                return bytes(self.block_size)  # cut off meanwhile: replay does the same
            found = page
            words = _pages(page, self.block_size)
            if not _is_wrong(words, self.block_numbers(block, 1))[0]:
                return found
            lsn = _lsn(words[0])
        self._damaged.add(block)
        return found


def take_together(pieces: Sequence[tuple[PageCheck, Chunk, int]]) -> list[Chunk]:
    """Take one chunk each of several files, all of one cluster, as ``PageCheck.take`` does, in the same order.

    A step over a few pages takes as long as one over hundreds, so many small files are checked much faster together.
    """
    read = [(check, _pages(chunk, check.block_size), offset // check.block_size) for check, chunk, offset in pieces]
    for (check, chunk, _), (_, pages, _) in zip(pieces, read, strict=True):
        check.unchecked_bytes += len(chunk) % check.block_size
        if len(pages):
            check.newest_lsn = max(check.newest_lsn, _newest(pages))
    checked = [number for number, (check, pages, _) in enumerate(read) if check.has_checksums and len(pages)]
    found = [chunk for _, chunk, _ in pieces]
    for number, wrong in zip(checked, _wrong_among([read[number] for number in checked]), strict=True):
        check, pages, first = read[number]
        instead = {index: check.judge(first + index, _lsn(pages[index])) for index in wrong}
        found[number] = _replaced(found[number], instead, check.block_size)
    return found


def _wrong_among(read: list[tuple[PageCheck, _Words, int]]) -> list[list[int]]:
    """Return the indexes of each file's wrong pages; ``read`` are the files with their pages and first blocks."""
    if not read:
        return []
    pages = read[0][1] if len(read) == 1 else np.concatenate([pages for _, pages, _ in read])
    blocks = np.concatenate([check.block_numbers(first, len(pages)) for check, pages, first in read])
    ends = np.cumsum([len(pages) for _, pages, _ in read])[:-1]
    return [np.flatnonzero(part).tolist() for part in np.split(_is_wrong(pages, blocks), ends)]


def _replaced(chunk: Chunk, instead: Mapping[int, bytes | None], block_size: int) -> Chunk:
    """Return the chunk with other bytes in place of some pages."""
    pages = {index: page for index, page in instead.items() if page is not None}
    if not pages:
        return chunk
    copy = bytearray(chunk)
    for index, page in pages.items():
        copy[index * block_size : (index + 1) * block_size] = page
    return bytes(copy)


def newest_lsn(pages: Chunk, block_size: int = 8192) -> Lsn:
    """Return the newest LSN of the whole pages in a chunk; 0/0 where all of them are new or there is none."""
    words = _pages(pages, block_size)
    return _newest(words) if len(words) else Lsn(0)


def _pages(chunk: Chunk, block_size: int) -> _Words:
    """Return the whole pages of a chunk as rows of words in memory's byte order, without a copy."""
    count = len(chunk) // block_size
    words: _Words = np.frombuffer(chunk, dtype=np.uint32, count=count * block_size // 4)
    return words.reshape(count, block_size // 4)


def _newest(pages: _Words) -> Lsn:
    lsns = (pages[:, _LSN_HIGH].astype(np.uint64) << np.uint64(32)) | pages[:, _LSN_LOW]
    return Lsn(int(lsns.max()))


def _lsn(page: _Words) -> Lsn:
    return Lsn(int(page[_LSN_HIGH]) << 32 | int(page[_LSN_LOW]))


def _is_wrong(pages: _Words, blocks: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Say for each page whether its content does not fit its checksum. A page that is all zeros is right."""
    halves = pages.view(np.uint16)
    wrong: NDArray[np.bool_] = halves[:, _CHECKSUM] != _checksums(pages, blocks)
    new = np.flatnonzero(halves[:, _UPPER] == 0)  # PageIsNew: the server then takes it only where all of it is zero
    if len(new):
        wrong[new] = pages[new].any(axis=1)
    return wrong


def _checksums(pages: _Words, blocks: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the checksums that the pages should have (pg_checksum_page)."""
    sums = _few_sums(pages) if len(pages) <= _FEW_PAGES else _many_sums(pages)
    sums ^= blocks
    sums %= _MODULUS
    sums += np.uint32(1)
    return sums


def _few_sums(pages: _Words) -> NDArray[np.uint32]:
    """Return pg_checksum_block of each page, one after the other: a quarter of the time where they are few.

    One of Python's large numbers holds all columns of a page, 64 bits apart, so that no product meets the next one.
    """
    found = np.empty(len(pages), np.uint32)
    prime, shift = int(_PRIME), int(_SHIFT)
    for index, page in enumerate(pages):
        words = page.astype("<u8")
        words[_CHECKSUM_WORD] &= _REST_OF_WORD
        rows = words.tobytes() + bytes(2 * _ROW_BYTES)  # two rounds of zeros at the end
        sums = _WIDE_OFFSETS
        for begin in range(0, len(rows), _ROW_BYTES):
            sums ^= int.from_bytes(rows[begin : begin + _ROW_BYTES], "little")
            sums = ((sums * prime) & _ALL_BITS) ^ ((sums >> shift) & _UPPER_BITS)
        found[index] = np.bitwise_xor.reduce(np.frombuffer(sums.to_bytes(_ROW_BYTES, "little"), "<u8"))
    return found


def _many_sums(pages: _Words) -> NDArray[np.uint32]:
    """Return pg_checksum_block of each page, worked out for many at once."""
    found = np.empty(len(pages), np.uint32)
    room = np.empty((2, min(len(pages), _PAGES_AT_ONCE), _COLUMNS), np.uint32)
    for begin in range(0, len(pages), _PAGES_AT_ONCE):
        part = pages[begin : begin + _PAGES_AT_ONCE]
        rows = part.reshape(len(part), -1, _COLUMNS)
        sums = _mixed(rows, room[0, : len(part)], room[1, : len(part)])
        np.bitwise_xor.reduce(sums, axis=1, out=found[begin : begin + len(part)])
    return found


def _mixed(rows: _Words, sums: _Words, mixed: _Words) -> _Words:
    """Return the sums of each page's columns; ``sums`` and ``mixed`` are room for the work."""
    header = rows[:, 0].copy()
    header[:, _CHECKSUM_WORD] &= _REST_OF_WORD
    np.bitwise_xor(header, _OFFSETS, mixed)
    for row in (*rows.transpose(1, 0, 2)[1:], _ZEROS, _ZEROS):
        np.multiply(mixed, _PRIME, sums)
        np.right_shift(mixed, _SHIFT, mixed)
        np.bitwise_xor(sums, mixed, sums)
        np.bitwise_xor(sums, row, mixed)
    np.multiply(mixed, _PRIME, sums)
    np.right_shift(mixed, _SHIFT, mixed)
    return np.bitwise_xor(sums, mixed, sums)
