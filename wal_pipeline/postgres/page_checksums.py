"""Verifies the checksums of a relation's pages, many pages at once, and finds the newest LSN in them.

The algorithm is that of checksum_impl.h, the fields are those of PageHeaderData (bufpage.h). Each step works on all
pages of a chunk and does not hold the interpreter's lock.
"""

import sys
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.wal.lsn import Lsn

Chunk = bytes | bytearray | memoryview
_COLUMNS: Final = 32  # N_SUMS
_PRIME: Final = np.uint32(16777619)  # FNV_PRIME
_SHIFT: Final = np.uint32(17)
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
_POOL_PAGES: Final = 512
_TRIES: Final = 3
_MOST_NAMED: Final = 100
_Words = NDArray[np.uint32]


class PageChecks:
    """Checks the pages of many relation files. It is for one thread.

    A page is right where its checksum is, where it is new (all zeros), and where it was written after the base backup
    began: replay restores it whole. Pages of small chunks are gathered, because many pages take hardly longer than one.
    """

    def __init__(
        self, start_lsn: Lsn, *, has_checksums: bool = True, block_size: int = 8192, blocks_per_segment: int = 131072
    ) -> None:
        """Take what ``StartedBackup`` has. Without checksums (``has_checksums``) only the LSNs are looked at."""
        self.start_lsn = start_lsn
        self.has_checksums = has_checksums
        self.block_size = block_size
        self.blocks_per_segment = blocks_per_segment
        self._pool = np.empty((_POOL_PAGES if has_checksums else 0, block_size // 4), np.uint32)
        self._used = 0
        self._waiting: list[tuple[PageCheck, int, int]] = []
        self._doubtful: dict[PageCheck, None] = {}

    def file(self, path: str, read_again: Callable[[int], bytes], segment: int = 0) -> "PageCheck":
        """Return the check of one file, number ``segment`` of its relation.

        A page that looks wrong may only have been read while it was written, so ``read_again`` is asked for it, also
        after the file's end until ``damaged_pages``: it gets the page's place in bytes and returns the page, or fewer
        bytes or none where the file is shorter now or gone.
        """
        return PageCheck(self, path, read_again, segment * self.blocks_per_segment)

    def damaged_pages(self, stop_lsn: Lsn) -> tuple[DamagedPages, ...]:
        """Return the damaged pages of all files, when the base backup has ended; blocks count from a file's beginning.

        A page with a wrong checksum whose LSN lies after ``stop_lsn`` was not written by this server: its LSN is part
        of the damage.
        """
        self._check_gathered()
        found = [(check.path, check.damaged_blocks(stop_lsn)) for check in self._doubtful]
        return tuple(DamagedPages(path, blocks[:_MOST_NAMED], len(blocks)) for path, blocks in sorted(found) if blocks)

    def gather(self, check: "PageCheck", pages: _Words, first: int) -> None:
        """Check pages of a file, of which the first is block ``first`` in it, at once or together with others."""
        count = len(pages)
        if count > _POOL_PAGES // 2:
            self._judge(pages, [(check, first, count)])
            return
        if self._used + count > _POOL_PAGES:
            self._check_gathered()
        self._pool[self._used : self._used + count] = pages
        self._used += count
        self._waiting.append((check, first, count))

    def _check_gathered(self) -> None:
        waiting, self._waiting, used, self._used = self._waiting, [], self._used, 0
        if used:
            self._judge(self._pool[:used], waiting)

    def _judge(self, pages: _Words, owners: list[tuple["PageCheck", int, int]]) -> None:
        """Find the wrong ones among pages that belong to the owners, one after the other."""
        blocks = np.concatenate([check.block_numbers(first, count) for check, first, count in owners])
        wrong = np.flatnonzero(_is_wrong(pages, blocks))
        if not len(wrong):
            return
        begin = 0
        for check, first, count in owners:
            for index in wrong[(wrong >= begin) & (wrong < begin + count)].tolist():
                check.doubt(first + index - begin, _lsn(pages[index]))
                self._doubtful[check] = None
            begin += count


class PageCheck:
    """Checks one relation file while it is read; ``take`` gets its chunks in any order. ``PageChecks`` makes it.

    ``newest_lsn`` is the newest of the pages that were taken. ``unchecked_bytes`` are those of chunks' ends that are no
    whole page.
    """

    def __init__(self, checks: PageChecks, path: str, read_again: Callable[[int], bytes], first_block: int) -> None:
        self.path = path
        self.newest_lsn = Lsn(0)
        self.unchecked_bytes = 0
        self._checks = checks
        self._read_again = read_again
        self._first_block = first_block
        self._damaged: set[int] = set()
        self._newer: dict[int, Lsn] = {}

    def take(self, chunk: Chunk, offset_bytes: int) -> None:
        """Check the pages of a chunk that lies at ``offset_bytes`` in the file; the chunk may be reused afterwards."""
        self.unchecked_bytes += len(chunk) % self._checks.block_size
        pages = _pages(chunk, self._checks.block_size)
        if not len(pages):
            return
        self.newest_lsn = max(self.newest_lsn, _newest(pages))
        if self._checks.has_checksums:
            self._checks.gather(self, pages, offset_bytes // self._checks.block_size)

    def block_numbers(self, first: int, count: int) -> NDArray[np.uint32]:
        """Return the numbers that blocks of this file have in the relation."""
        start = self._first_block + first
        return np.arange(start, start + count, dtype=np.uint32)

    def doubt(self, block: int, lsn: Lsn) -> None:
        """Take a page whose checksum is wrong, and judge it: the server may have been writing it."""
        for _ in range(_TRIES):
            if lsn >= self._checks.start_lsn:
                self._newer[block] = lsn
                return
            page = self._read_again(block * self._checks.block_size)
            if len(page) < self._checks.block_size:
                return  # truncated meanwhile: replay does the same
            words = _pages(page, self._checks.block_size)
            if not _is_wrong(words, self.block_numbers(block, 1))[0]:
                return
            lsn = _lsn(words[0])
        self._damaged.add(block)

    def damaged_blocks(self, stop_lsn: Lsn) -> tuple[int, ...]:
        """Return the damaged blocks, in order, of a base backup that ended at ``stop_lsn``."""
        return tuple(sorted(self._damaged | {block for block, lsn in self._newer.items() if lsn > stop_lsn}))


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
    found = np.empty(len(pages), np.uint32)
    room = np.empty((2, min(len(pages), _PAGES_AT_ONCE), _COLUMNS), np.uint32)
    for begin in range(0, len(pages), _PAGES_AT_ONCE):
        part = pages[begin : begin + _PAGES_AT_ONCE]
        rows = part.reshape(len(part), -1, _COLUMNS)
        sums = _mixed(rows, room[0, : len(part)], room[1, : len(part)])
        np.bitwise_xor.reduce(sums, axis=1, out=found[begin : begin + len(part)])
    found ^= blocks
    found %= _MODULUS
    found += np.uint32(1)
    return found


def _mixed(rows: _Words, sums: _Words, mixed: _Words) -> _Words:
    """Return the sums of each page's columns (pg_checksum_block); ``sums`` and ``mixed`` are room for the work."""
    sums[:] = _OFFSETS
    header = rows[:, 0].copy()
    header[:, _CHECKSUM_WORD] &= _REST_OF_WORD
    for row in range(rows.shape[1] + 2):  # two rounds of zeros at the end
        if row < rows.shape[1]:
            np.bitwise_xor(sums, header if row == 0 else rows[:, row], out=mixed)
        else:
            np.copyto(mixed, sums)
        np.multiply(mixed, _PRIME, out=sums)
        np.right_shift(mixed, _SHIFT, out=mixed)
        np.bitwise_xor(sums, mixed, out=sums)
    return sums
